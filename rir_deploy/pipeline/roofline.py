"""roofline: how far engines are from what this machine can do, and which of their layers hold them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rir_deploy.bench.machine import read_machine
from rir_deploy.bench.options import SYNCHRONOUS, BenchOptions
from rir_deploy.bench.process import run_job
from rir_deploy.bench.rows import BenchRow
from rir_deploy.engines.base import GRAPH_NAME
from rir_deploy.engines.manifest import check_engine
from rir_deploy.engines.node_times import NodeTime
from rir_deploy.errors import BackendError, InputError, RirDeployError, UsageError
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.bench_contenders import Contender, find_contenders
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.roofline_bench import read_medians
from rir_deploy.pipeline.roofline_layers import GraphLayer, ImageShape, graph_layers
from rir_deploy.pipeline.roofline_measure import (
    CPU_BACKENDS,
    WORKER,
    Measured,
    MeasureOptions,
    machine_key,
    measure_again,
    measure_ceilings,
)
from rir_deploy.pipeline.roofline_profile import LayerTimes, assign_times
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.recipe import load_recipe
from rir_deploy.roofline.ceilings import Ceilings
from rir_deploy.roofline.model import LayerBound, bound_layers

Record = dict[str, Any]
# A share over this: the ceiling was measured too low to be one. Times vary by some percent on the quietest machine.
MAX_SHARE = 1.02
# A machine whose best shape now runs below this share of its ceiling is busy or throttled.
MIN_NOW = 0.9


@dataclass(frozen=True)
class RooflineRequest:
    """What to hold against the machine.

    Attributes:
        engines: engine folders of CPU backends, and ONNX files, which run in ONNX Runtime.
        options: how the engines are timed, at which batch sizes, on how many threads.
        recipe: gives the image size where a model leaves it open.
        bench: what an earlier ``bench --json`` printed: its medians stand for the engines' times.
        cache: take ceilings that were measured before, and keep what is measured now.
        measure: how ceilings are measured.
    """

    engines: tuple[Path, ...]
    options: BenchOptions = BenchOptions()
    recipe: str | None = None
    bench: Path | None = None
    cache: bool = True
    measure: MeasureOptions = MeasureOptions()

    def __post_init__(self) -> None:
        if not self.engines:
            raise UsageError("name something to hold against the machine: an engine folder or an ONNX file")


@dataclass(frozen=True)
class _Trial:
    """An engine at one batch size."""

    contender: Contender
    batch: int
    layers: tuple[GraphLayer, ...]


@dataclass(frozen=True)
class _Time:
    """Of a call in ms; ``fastest`` is None where only the median is known."""

    median: float
    fastest: float | None


def roofline_files(request: RooflineRequest, progress: Progress = silent) -> Record:
    """The record, as plain data; `report.schema_roofline` says what each key holds.

    Raises:
        UsageError: an engine of a GPU's backend, a checkpoint, a batch size that an engine does not take.
        InputError: an engine that its manifest does not vouch for, a bench that does not hold all of them or is of
            another CPU or number of threads.
        BackendError: no CPU backend is here, or nothing could be timed.
    """
    machine = read_machine()
    threads = request.options.threads or machine.cores
    options = replace(request.options, threads=threads, modes=(SYNCHRONOUS,), streams=None)
    image = None if request.recipe is None else load_recipe(request.recipe).preprocessing.input_shape
    trials = _trials(request, image)
    known = None if request.bench is None else _known(trials, request.bench, machine.cpu, threads)
    own = [(layer.work.precision, layer.shape.chained()) for one in trials for layer in one.layers if layer.shape]
    measured = measure_ceilings(machine_key(machine, threads), own, request.cache, request.measure, progress)
    times = known or _times(trials, request, options, progress)
    rows = [_row(one, time, measured.ceilings, threads, image) for one, time in zip(trials, times, strict=True)]
    return _record(machine.to_dict(), threads, measured, rows, request.measure.seconds)


def _trials(request: RooflineRequest, image: ImageShape | None) -> list[_Trial]:
    trials = []
    for path in request.engines:
        if kind_of(path) not in ("engine", "onnx"):
            raise UsageError(f"'{path}' is neither an engine nor an ONNX file, whose layers are known; build one first")
        contender = find_contenders(path)[0]
        if contender.backend not in CPU_BACKENDS:
            names = " and ".join(CPU_BACKENDS)
            raise UsageError(f"'{path}' is for {contender.backend}: ceilings are measured on CPUs, in {names}")
        model = load_onnx(_graph_of(contender))
        for batch in request.options.batches:
            refusal = contender.refusal(batch)
            if refusal is not None:
                raise refusal
            layers = graph_layers(model, batch, image)
            if not sum(layer.work.macs for layer in layers):
                raise InputError(f"'{path}' has no layer whose multiply-adds can be counted; export it again")
            trials.append(_Trial(contender, batch, layers))
    return sorted(trials, key=lambda one: one.batch)


def _graph_of(contender: Contender) -> Path:
    return contender.path / GRAPH_NAME if contender.kind == "engine" else contender.path


def _known(trials: Sequence[_Trial], bench: Path, cpu: str, threads: int) -> list[_Time]:
    """What every trial took in a bench."""
    own, how = [(one.contender, one.batch) for one in trials], {"threads": threads}
    rows = [BenchRow(one.name, one.backend, one.precision, batch, None, details=how) for one, batch in own]
    return [_Time(median, None) for median in read_medians(bench, rows, cpu)]


def _times(
    trials: Sequence[_Trial], request: RooflineRequest, options: BenchOptions, progress: Progress
) -> list[_Time]:
    """What every trial takes, timed now."""
    benched = bench_files(BenchRequest(request.engines, options, request.recipe), progress)
    found = {(row.engine, row.batch): row for row in benched.rows}
    timed = [found[one.contender.name, one.batch] for one in trials]
    for row in timed:
        if row.record is None:
            raise BackendError(f"'{row.engine}' could not be timed: {row.reason}")
    return [_Time(row.record.median_ms, row.record.min_ms) for row in timed if row.record is not None]


def _row(one: _Trial, time: _Time, ceilings: Ceilings, threads: int, image: ImageShape | None) -> Record:
    bounds = bound_layers([layer.work for layer in one.layers], ceilings)
    ceiling_ms = sum(bound.ceiling_ms for bound in bounds)
    macs = sum(bound.work.macs for bound in bounds)
    times, notes = _profile(one, threads, image)
    share = ceiling_ms / time.median
    if (largest := ceiling_ms / (time.fastest or time.median)) > MAX_SHARE:
        notes.append(
            f"it is faster than its ceiling ({largest:.0%}): the machine was slower while that was measured; --no-cache"
        )
    return {
        "engine": one.contender.name,
        "backend": one.contender.backend,
        "precision": one.contender.precision,
        "batch": one.batch,
        "median_ms": time.median,
        "fastest_ms": time.fastest,
        "ceiling_ms": ceiling_ms,
        "share": share,
        "fastest_share": None if time.fastest is None else ceiling_ms / time.fastest,
        "macs": macs,
        "bytes": sum(bound.work.bytes for bound in bounds),
        "gmac_per_s": macs / time.median / 1e6,
        "rest_ms": None if times is None else sum(node.ms for node in times.rest),
        "layers": [_layer(bound, None if times is None else times.layers[i]) for i, bound in enumerate(bounds)],
        "rest": []
        if times is None
        else [{"node": node.names[0], "op": node.op, "measured_ms": node.ms} for node in times.rest],
        "warnings": notes,
    }


def _layer(bound: LayerBound, measured_ms: float | None) -> Record:
    work = bound.work
    return {
        "node": work.node,
        "block": work.block,
        "precision": work.precision,
        "macs": work.macs,
        "bytes": work.bytes,
        "ceiling_ms": bound.ceiling_ms,
        "measured_ms": measured_ms,
        "bound": bound.bound,
    }


def _profile(one: _Trial, threads: int, image: ImageShape | None) -> tuple[LayerTimes | None, list[str]]:
    contender = one.contender
    engine = contender.path
    try:
        if contender.kind == "engine":
            engine = contender.path / check_engine(contender.path).engine.name
        job = {
            "kind": "layers",
            "backend": contender.backend,
            "engine": str(engine),
            "graph": str(_graph_of(contender)),
            "batch": one.batch,
            "image": image,
            "threads": threads,
        }
        nodes = run_job(WORKER, job, f"the profile of '{contender.name}'")["nodes"]
    except RirDeployError as error:
        return None, [f"the times of its layers are not known: {error}"]
    return assign_times(one.layers, [NodeTime(tuple(node["names"]), node["op"], node["ms"]) for node in nodes]), []


def _record(machine: Record, threads: int, measured: Measured, rows: list[Record], seconds: float) -> Record:
    ceilings, notes = measured.ceilings, list(measured.notes)
    for precision in sorted({row["precision"] for row in rows}):
        best, now = ceilings.best(precision), measure_again(ceilings, precision, seconds)
        if best is not None and now is not None and now.gmac_per_s < MIN_NOW * best.gmac_per_s:
            notes.append(
                f"the machine now computes {precision} at {now.gmac_per_s / best.gmac_per_s:.0%} of its ceiling: "
                "it is busy or its clocks are lower, and the shares are too low by as much"
            )
    return {
        "machine": machine,
        "threads": threads,
        "cached": measured.cached,
        "ceilings": [
            {
                "precision": one.probe.precision,
                "backend": one.probe.backend,
                "gmac_per_s": one.gmac_per_s,
                "shape": one.probe.shape.label,
            }
            for one in ceilings.bests()
        ],
        "copy_gb_per_s": ceilings.memory_gb_per_s,
        "copies": [asdict(copy) for copy in ceilings.copies],
        "engines": rows,
        "notes": notes,
    }
