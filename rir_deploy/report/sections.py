"""The parts of the report in their order: what each holds, whatever it is written as.

A new part is a function from the run to a `Section`, None where the run has nothing for it, and a line of `_SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rir_deploy.report.flipped import Flipped, flipped_images, flips_table
from rir_deploy.report.plots import Plot, fold_plot, size_plot
from rir_deploy.report.plots_accuracy import accuracy_plot, drop_plot
from rir_deploy.report.plots_bench import bench_plots
from rir_deploy.report.plots_block import block_plots
from rir_deploy.report.plots_int8 import sensitivity_plots
from rir_deploy.report.plots_layers import layers_plot
from rir_deploy.report.plots_roofline import roofline_plots
from rir_deploy.report.schema import Run
from rir_deploy.report.table import Table
from rir_deploy.report.tables_accuracy import accuracy_table, recall_table, worst_class_table
from rir_deploy.report.tables_bench import doubts, latency_table, load_table, settings_table, throughput_table
from rir_deploy.report.tables_engine import engines_table, proofs_table, runtimes_table
from rir_deploy.report.tables_files import absent_table, files_table
from rir_deploy.report.tables_gpu import gpu_table
from rir_deploy.report.tables_int8 import candidates_table, pairs_table, ranking_table
from rir_deploy.report.tables_machine import conditions_table, machine_table
from rir_deploy.report.tables_model import fold_table, graphs_table, kept_tables, model_table
from rir_deploy.report.tables_roofline import roofline_doubts, roofline_tables
from rir_deploy.report.tables_stages import divergences, errors_table, stages_table


@dataclass(frozen=True)
class Section:
    """A part of the report: sentences to be wary of, plots (drawn when they are asked for), tables, images."""

    name: str
    title: str
    tables: tuple[Table, ...] = ()
    draw: Callable[[], Iterable[Plot]] = tuple
    doubts: tuple[str, ...] = ()
    images: tuple[Flipped, ...] = ()


def sections(run: Run) -> list[Section]:
    """The parts of the report on a run; a part that the run has nothing for is left out."""
    found = [make(run) for make in _SECTIONS]
    return [one for one in found if one is not None]


def _model(run: Run) -> Section:
    tables = model_table(run), machine_table(run.machine, "machine", "The machine of the run")
    return Section("model", "Model and machine", tables)


def _fold(run: Run) -> Section | None:
    fold = run.export.fold
    if fold is None:
        return None
    return Section("fold", "Fold", (fold_table(fold),), lambda: _drawn(fold_plot(fold), *block_plots(run.block)))


def _stages(run: Run) -> Section | None:
    stages = run.stages
    return None if stages is None else Section("stages", "Stage by stage", (stages_table(stages),))


def _layers(run: Run) -> Section | None:
    layers = run.layers
    if not layers:
        return None
    tables = tuple(errors_table(one) for one in layers if one.rows)
    return Section("layers", "Layer by layer", tables, lambda: _drawn(layers_plot(run)), tuple(divergences(layers)))


def _graphs(run: Run) -> Section | None:
    tables = kept_tables(run)
    if not run.all_graphs and not tables:
        return None
    graphs = (graphs_table(run.all_graphs),) if run.all_graphs else ()
    return Section("graphs", "Graphs", (*graphs, *tables))


def _engines(run: Run) -> Section | None:
    if not run.engines:
        return None
    proofs = proofs_table(run.engines)
    tables = (engines_table(run.engines), *([proofs] if proofs.rows else []), runtimes_table(run.all_engines))
    return Section("engines", "Engines and parity", tables, lambda: _drawn(size_plot(run)))


def _accuracy(run: Run) -> Section | None:
    table = accuracy_table(run.engines)
    if table is None:
        return None
    recalls = (worst_class_table(run.engines), recall_table(run.engines))
    tables = (table, *(one for one in recalls if one is not None))
    return Section("accuracy", "Accuracy", tables, lambda: _drawn(accuracy_plot(run.engines), drop_plot(run.engines)))


def _flips(run: Run) -> Section | None:
    table = flips_table(run)
    return None if table is None else Section("flips", "Flipped images", (table,), images=flipped_images(run))


def _pairs(run: Run) -> Section | None:
    table = pairs_table(run)
    return None if table is None else Section("pairs", "Folded against unfolded", (table,))


def _int8(run: Run) -> Section | None:
    made = [table for graph in run.all_graphs for table in (candidates_table(graph), ranking_table(graph))]
    tables = tuple(table for table in made if table is not None)
    if not tables:
        return None
    return Section(
        "int8",
        "How INT8 was chosen",
        tables,
        lambda: [plot for graph in run.all_graphs for plot in sensitivity_plots(graph)],
    )


def _latency(run: Run) -> Section | None:
    bench = run.bench
    if bench is None or not bench.results:
        return None
    machine = machine_table(bench.machine, "bench-machine", "The machine of the bench")
    conditions = None if bench.conditions is None else conditions_table(bench.conditions)
    figures = latency_table(bench), throughput_table(bench), gpu_table(bench), load_table(bench)
    tables = (*figures, settings_table(bench), machine, conditions)
    return Section(
        "latency",
        "Latency",
        tuple(table for table in tables if table is not None),
        lambda: bench_plots(bench),
        tuple(doubts(bench)),
    )


def _roofline(run: Run) -> Section | None:
    roofline = run.roofline
    if roofline is None:
        return None
    tables, doubts_of = roofline_tables(roofline), tuple(roofline_doubts(roofline))
    return Section("roofline", "Roofline", tables, lambda: roofline_plots(roofline), doubts_of)


def _provenance(run: Run) -> Section | None:
    return Section("provenance", "Provenance", (files_table(run.files),)) if run.files else None


def _absent(run: Run) -> Section | None:
    table = absent_table(run)
    return None if table is None else Section("absent", "Not run", (table,))


def _drawn(*plots: Plot | None) -> tuple[Plot, ...]:
    return tuple(plot for plot in plots if plot is not None)


_SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    _model,
    _stages,
    _accuracy,
    _flips,
    _layers,
    _fold,
    _graphs,
    _engines,
    _pairs,
    _int8,
    _latency,
    _roofline,
    _provenance,
    _absent,
)
