"""The report: one HTML file that needs nothing else, made from a run's record alone.

The page has no script and asks for nothing over the network; its plots are inline SVG in the page's own colours. The
same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rir_deploy.errors import BackendError
from rir_deploy.report.plots import Plot, accuracy_plot, fold_plot, size_plot
from rir_deploy.report.plots_bench import bench_plots
from rir_deploy.report.plots_int8 import sensitivity_plots
from rir_deploy.report.schema import Run, read_run
from rir_deploy.report.summary import summarize
from rir_deploy.report.table import Table
from rir_deploy.report.tables_bench import doubts, latency_table, settings_table
from rir_deploy.report.tables_engine import engines_table, proofs_table, runtimes_table
from rir_deploy.report.tables_files import absent_table, files_table
from rir_deploy.report.tables_int8 import candidates_table, pairs_table
from rir_deploy.report.tables_model import fold_table, graphs_table, kept_tables, machine_table, model_table


@dataclass(frozen=True)
class Section:
    """A part of the page: plots first, then tables, then sentences to be wary of."""

    name: str
    title: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    doubts: tuple[str, ...] = ()


def render(run: Mapping[str, Any], source: str = "run.json") -> str:
    """The report on a run as HTML.

    Args:
        run: the record as plain JSON data; see `schema`.
        source: names the record in messages.

    Raises:
        InputError: the record is malformed.
        BackendError: jinja2 or matplotlib is not installed.
    """
    return render_run(read_run(run, source))


def render_run(run: Run) -> str:
    """`render` for a record that was read already."""
    try:
        import jinja2
        import markupsafe
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendError(f'{error.name} is not installed; run: python -m pip install "rir-deploy[host]"') from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rir_deploy.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markup"] = markupsafe.Markup
    page = environment.get_template("report.html.jinja")
    return page.render(run=run, summary=summarize(run), sections=sections(run))


def sections(run: Run) -> list[Section]:
    """The parts of the page in their order; a part that the run has nothing for is left out."""
    parts = [
        Section(
            "model",
            "Model and machine",
            (model_table(run), machine_table(run.machine, "machine", "The machine of the run")),
        ),
        _fold(run),
        _graphs(run),
        _engines(run),
        _pairs(run),
        _int8(run),
        _latency(run),
        Section("provenance", "Provenance", (files_table(run.files),)) if run.files else None,
        _absent(run),
    ]
    return [part for part in parts if part is not None]


def _fold(run: Run) -> Section | None:
    fold = run.export.fold
    return None if fold is None else Section("fold", "Fold", (fold_table(fold),), _drawn(fold_plot(fold)))


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
    return Section("engines", "Engines and parity", tables, _drawn(accuracy_plot(run.engines), size_plot(run)))


def _pairs(run: Run) -> Section | None:
    table = pairs_table(run)
    return None if table is None else Section("pairs", "Folded against unfolded", (table,))


def _int8(run: Run) -> Section | None:
    tables = tuple(table for graph in run.all_graphs if (table := candidates_table(graph)) is not None)
    plots = tuple(plot for graph in run.all_graphs for plot in sensitivity_plots(graph))
    return Section("int8", "How INT8 was chosen", tables, plots) if tables or plots else None


def _latency(run: Run) -> Section | None:
    bench = run.bench
    if bench is None or not bench.results:
        return None
    machine = machine_table(bench.machine, "bench-machine", "The machine of the bench")
    tables = (latency_table(bench), settings_table(bench), machine)
    return Section("latency", "Latency", tables, tuple(bench_plots(bench)), tuple(doubts(bench)))


def _absent(run: Run) -> Section | None:
    table = absent_table(run)
    return None if table is None else Section("absent", "Not run", (table,))


def _drawn(*plots: Plot | None) -> tuple[Plot, ...]:
    return tuple(plot for plot in plots if plot is not None)
