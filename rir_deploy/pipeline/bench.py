"""bench: engines, ONNX files and checkpoints timed side by side, each in its own process."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rir_deploy.bench.baseline import BaselineResult, check_common, compare, read_baseline
from rir_deploy.bench.conditions import Conditions, Watch
from rir_deploy.bench.doubts import conditions_doubts, machine_doubts
from rir_deploy.bench.machine import Machine, load_average, own_cores, read_machine
from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.rows import BenchRow, int8_notes, rows_to_dicts
from rir_deploy.bench.summary import PERCENTILE_METHOD
from rir_deploy.bundle import open_bundle
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.errors import BackendError, UsageError
from rir_deploy.pipeline.bench_contenders import Contender, bundled_contenders, find_contenders
from rir_deploy.pipeline.bench_images import SEED
from rir_deploy.pipeline.bench_trial import Trial, row_of, take_turn
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.recipe import load_recipe


@dataclass(frozen=True)
class BenchRequest:
    """What to time.

    Attributes:
        engines: engine folders, ONNX files (run in ONNX Runtime), checkpoints (PyTorch eager) and bundles.
        names: graphs and engines to time of the bundles; none for all engines, or the graphs of one without any.
        recipe: gives the image size where a model leaves it open.
        factory: "package.module:factory" for checkpoints of a foreign network.
        weights: chooses among several sets of weights in a checkpoint: "model", "ema" or a key.
        channels_last: time every checkpoint a second time, in PyTorch's channels-last layout.
        gpu: how TensorRT and TensorRT-RTX run their engines.
        trust: load engines whatever their manifests say.
        baseline: what an earlier run printed with --json; its times are the gate.
        max_regression: 0 to 10; the share by which a time may grow over the baseline's.
    """

    engines: tuple[Path, ...]
    options: BenchOptions = BenchOptions()
    recipe: str | None = None
    factory: str | None = None
    channels_last: bool = False
    gpu: GpuOptions = GpuOptions()
    trust: bool = False
    baseline: Path | None = None
    max_regression: float = 0.05
    names: tuple[str, ...] = ()
    weights: str | None = None

    def __post_init__(self) -> None:
        if not self.engines:
            raise UsageError("name something to time: an engine folder, an ONNX file, a checkpoint or a bundle")
        if not 0 <= self.max_regression <= 10:
            raise UsageError(f"the allowed regression must be 0 to 10 (1000 %), not {self.max_regression:g}")


@dataclass(frozen=True)
class Benched:
    """The rows, mode by mode and batch size by batch size in the order of the request, with what they were measured on
    and how.

    ``times_ns`` holds the raw times of every row: a list a round. ``notes`` are warnings about the machine and the
    comparison, a sentence each; those about a row are in the row.
    """

    rows: tuple[BenchRow, ...]
    times_ns: tuple[tuple[tuple[int, ...], ...], ...]
    machine: Machine
    conditions: Conditions
    settings: dict[str, object]
    notes: tuple[str, ...]
    baseline: BaselineResult | None

    def to_dict(self) -> dict[str, object]:
        return {
            "results": rows_to_dicts(self.rows),
            "machine": self.machine.to_dict(),
            "conditions": asdict(self.conditions),
            "settings": self.settings,
            "notes": list(self.notes),
            "baseline": None if self.baseline is None else self.baseline.to_dict(),
        }

    def times_to_dict(self) -> dict[str, object]:
        """The raw times in ns: {"results": [{"engine", "backend", "batch", "mode", "rounds_ns": [[...], ...]}]}."""
        rows = [
            {"engine": row.engine, "backend": row.backend, "batch": row.batch, "mode": row.mode, "rounds_ns": times}
            for row, times in zip(self.rows, self.times_ns, strict=True)
        ]
        return {"results": rows}


def bench_files(request: BenchRequest, progress: Progress = silent) -> Benched:
    """Time every contender at every batch size; they take turns, round by round.

    A contender whose runtime or hardware is not there becomes a row that says so. A failed gate is no error: it is
    the result.

    Raises:
        UsageError, InputError: a contender, a batch size or the baseline cannot be used.
        BackendError: not one of the contenders could be run.
    """
    with ExitStack() as bundles:
        return _bench(_contenders(request, bundles), request, progress)


def _contenders(request: BenchRequest, bundles: ExitStack) -> list[Contender]:
    """All there is to time; bundles stay unpacked for as long as ``bundles`` is open."""
    kinds = {path: kind_of(path) for path in request.engines}
    if request.names and "bundle" not in kinds.values():
        raise UsageError("--engine chooses from a bundle, and none is named; leave it out")
    found = []
    for path in request.engines:
        if kinds[path] == "bundle":
            found += bundled_contenders(bundles.enter_context(open_bundle(path)), request.names)
        else:
            found += find_contenders(path, request.channels_last, request.trust)
    return found


def _bench(contenders: list[Contender], request: BenchRequest, progress: Progress) -> Benched:
    machine = read_machine()
    options = replace(request.options, threads=request.options.threads or machine.cores)
    trials = [
        Trial(contender, batch, mode) for mode in options.modes for batch in options.batches for contender in contenders
    ]
    baseline = None if request.baseline is None else read_baseline(request.baseline)
    notes, load = machine_doubts(machine, options.threads or 1), load_average()
    if baseline is not None:
        check_common([row_of(trial, options, request.gpu.calls) for trial in trials], baseline)
        notes += baseline.another_machine(machine.cpu)
    with Watch(own_cores()) as watch:
        _run_rounds(trials, request, options, progress)
    rows = tuple(row_of(trial, options, request.gpu.calls) for trial in trials)
    return Benched(
        rows,
        tuple(tuple(samples.times_ns for samples in trial.rounds) for trial in trials),
        machine,
        watch.conditions,
        _settings(options),
        (*notes, *conditions_doubts(watch.conditions, machine.cores, load), *int8_notes(rows)),
        None if baseline is None else compare(rows, baseline, request.max_regression),
    )


def _run_rounds(trials: list[Trial], request: BenchRequest, options: BenchOptions, progress: Progress) -> None:
    image = None if request.recipe is None else load_recipe(request.recipe).preprocessing.input_shape
    shared = {
        "options": options.of_one_round().to_dict(),
        "threads": options.threads,
        "streams": options.streams,
        "image": image,
        "factory": request.factory,
        "weights": request.weights,
        "trust": request.trust,
        **request.gpu.calls,
        "runtime_cache": None if request.gpu.runtime_cache is None else str(request.gpu.runtime_cache),
    }
    total = options.rounds * len(trials)
    progress("timing", 0, total)
    for turn in range(options.rounds):
        for index, trial in enumerate(trials):
            take_turn(trial, shared)
            progress("timing", turn * len(trials) + index + 1, total)
    _check_any(trials)


def _check_any(trials: list[Trial]) -> None:
    errors = [trial.error for trial in trials if trial.error is not None]
    if len(errors) < len(trials):
        return
    missing = any(isinstance(error, BackendError) for error in errors)
    reasons = "; ".join(dict.fromkeys(map(str, errors)))
    raise (BackendError if missing else UsageError)(f"nothing could be timed: {reasons}")


def _settings(options: BenchOptions) -> dict[str, object]:
    return {
        **options.to_dict(),
        "percentiles": list(options.all_percentiles),
        "percentile_method": PERCENTILE_METHOD,
        "seed": SEED,
        "process": "a fresh one for every engine, batch size, mode and round",
    }
