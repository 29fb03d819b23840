"""bench: engines, ONNX files and checkpoints timed side by side, each in its own process."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rir_deploy.bench.baseline import Baseline, BaselineResult, check_common, compare, read_baseline
from rir_deploy.bench.latency import Samples
from rir_deploy.bench.machine import Machine, load_average, read_machine
from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.process import Job, run_job
from rir_deploy.bench.rows import BenchRow, int8_notes, rows_to_dicts
from rir_deploy.bench.summary import PERCENTILE_METHOD, summarize
from rir_deploy.bundle import open_bundle
from rir_deploy.engines.base import GpuOptions
from rir_deploy.errors import BackendError, RirDeployError, UsageError
from rir_deploy.pipeline.bench_contenders import Contender, bundled_contenders, find_contenders
from rir_deploy.pipeline.bench_worker import SEED
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.recipe import load_recipe

WORKER = "rir_deploy.pipeline.bench_worker"
# Over this share of the cores busy before the start, the figures are not the engine's alone.
MAX_LOAD = 0.5


@dataclass(frozen=True)
class BenchRequest:
    """What to time.

    Attributes:
        engines: engine folders, ONNX files (run in ONNX Runtime), checkpoints (PyTorch eager) and bundles.
        names: graphs and engines to time of the bundles; none for all engines, or the graphs of one without any.
        recipe: gives the image size where a model leaves it open.
        factory: "package.module:factory" for checkpoints of a foreign network.
        channels_last: time every checkpoint a second time, in PyTorch's channels-last layout.
        gpu: how TensorRT and TensorRT-RTX run their engines.
        trust: load engines whatever their manifests say.
        baseline: what an earlier run printed with --json; its medians are the gate.
        max_regression: 0 to 10; the share by which a median may grow over the baseline's.
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

    def __post_init__(self) -> None:
        if not self.engines:
            raise UsageError("name something to time: an engine folder, an ONNX file, a checkpoint or a bundle")
        if not 0 <= self.max_regression <= 10:
            raise UsageError(f"the allowed regression must be 0 to 10 (1000 %), not {self.max_regression:g}")


@dataclass
class Trial:
    """One contender at one batch size, and what the rounds have brought so far."""

    contender: Contender
    batch: int
    answers: list[Job] = field(default_factory=list)
    error: RirDeployError | None = None

    @property
    def rounds(self) -> list[Samples]:
        return [Samples(tuple(one["times_ns"]), one["first_ns"], one["warmup_runs"]) for one in self.answers]


@dataclass(frozen=True)
class Benched:
    """The rows, batch size by batch size in the order of the request, with what they were measured on and how.

    ``times_ns`` holds the raw times of every row: a list a round.
    """

    rows: tuple[BenchRow, ...]
    times_ns: tuple[tuple[tuple[int, ...], ...], ...]
    machine: Machine
    settings: dict[str, object]
    notes: tuple[str, ...]
    baseline: BaselineResult | None

    def to_dict(self) -> dict[str, object]:
        return {
            "results": rows_to_dicts(self.rows),
            "machine": self.machine.to_dict(),
            "settings": self.settings,
            "notes": list(self.notes),
            "baseline": None if self.baseline is None else self.baseline.to_dict(),
        }

    def times_to_dict(self) -> dict[str, object]:
        """The raw times in ns: {"results": [{"engine", "backend", "batch", "rounds_ns": [[...], ...]}]}."""
        pairs = zip(self.rows, self.times_ns, strict=True)
        return {
            "results": [
                {"engine": row.engine, "backend": row.backend, "batch": row.batch, "rounds_ns": times}
                for row, times in pairs
            ]
        }


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
    trials = [Trial(contender, batch) for batch in options.batches for contender in contenders]
    baseline = None if request.baseline is None else read_baseline(request.baseline)
    if baseline is not None:
        check_common([_row(trial, options) for trial in trials], baseline)
    notes = _machine_notes(machine, baseline)
    _run_rounds(trials, request, options, progress)
    rows = tuple(_row(trial, options) for trial in trials)
    return Benched(
        rows,
        tuple(tuple(samples.times_ns for samples in trial.rounds) for trial in trials),
        machine,
        _settings(options),
        (*notes, *int8_notes(rows)),
        None if baseline is None else compare(rows, baseline, request.max_regression),
    )


def _run_rounds(trials: list[Trial], request: BenchRequest, options: BenchOptions, progress: Progress) -> None:
    image = None if request.recipe is None else load_recipe(request.recipe).preprocessing.input_shape
    shared = {
        "options": options.of_one_round().to_dict(),
        "threads": options.threads,
        "image": image,
        "factory": request.factory,
        "trust": request.trust,
        "cuda_graph": request.gpu.cuda_graph,
        "runtime_cache": None if request.gpu.runtime_cache is None else str(request.gpu.runtime_cache),
    }
    total = options.rounds * len(trials)
    progress("timing", 0, total)
    for turn in range(options.rounds):
        for index, trial in enumerate(trials):
            _take_turn(trial, shared)
            progress("timing", turn * len(trials) + index + 1, total)
    _check_any(trials)


def _check_any(trials: list[Trial]) -> None:
    errors = [trial.error for trial in trials if trial.error is not None]
    if len(errors) < len(trials):
        return
    missing = any(isinstance(error, BackendError) for error in errors)
    reasons = "; ".join(dict.fromkeys(map(str, errors)))
    raise (BackendError if missing else UsageError)(f"nothing could be timed: {reasons}")


def _take_turn(trial: Trial, shared: dict[str, Any]) -> None:
    """One round of one trial. What is not there today is not asked again."""
    if trial.error is not None:
        return
    contender, batch = trial.contender, trial.batch
    trial.error = contender.refusal(batch)
    if trial.error is not None:
        return
    job = {
        **shared,
        "path": str(contender.path),
        "kind": contender.kind,
        "batch": batch,
        "channels_last": contender.channels_last,
    }
    try:
        trial.answers.append(run_job(WORKER, job, f"'{contender.name}' at batch {batch}"))
    except BackendError as error:
        trial.error = BackendError(str(error).replace(str(contender.path), contender.name))
        trial.answers.clear()  # half of its rounds would not have seen what the others' have


def _row(trial: Trial, options: BenchOptions) -> BenchRow:
    contender = trial.contender
    head = (contender.name, contender.backend, contender.precision, trial.batch)
    details: dict[str, object] = {
        "kind": contender.kind,
        "sha256": contender.sha256,
        "mode": "synchronous",
        "threads": options.threads,
    }
    if not trial.answers:
        return BenchRow(*head, None, str(trial.error or "not yet"), details)
    first = trial.answers[0]
    details |= {"runs_on": first["runs_on"], "input": first["input"], "load_ms": first["load_ms"]}
    return BenchRow(*head, summarize(trial.rounds, trial.batch, options.all_percentiles), details=details)


def _settings(options: BenchOptions) -> dict[str, object]:
    return {
        **options.to_dict(),
        "percentiles": list(options.all_percentiles),
        "percentile_method": PERCENTILE_METHOD,
        "mode": "synchronous",
        "seed": SEED,
        "process": "a fresh one for every engine, batch size and round",
    }


def _machine_notes(machine: Machine, baseline: Baseline | None) -> list[str]:
    notes = []
    load = load_average()
    if load is not None and load > MAX_LOAD * machine.cores:
        notes.append(f"the machine was busy before the start (load {load:.1f} on {machine.cores} cores)")
    if baseline is not None and baseline.cpu not in (None, machine.cpu):
        notes.append(f"the baseline was measured on another machine ({baseline.cpu}, here {machine.cpu})")
    return notes
