"""One contender at one batch size in one mode: its turns, and the row that they make."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rir_deploy.bench.doubts import host_bound, preempted
from rir_deploy.bench.latency import Samples
from rir_deploy.bench.options import PIPELINED, BenchOptions
from rir_deploy.bench.process import Job, run_job
from rir_deploy.bench.rows import BenchRow
from rir_deploy.bench.summary import LatencyRecord, percentile_of, summarize
from rir_deploy.errors import BackendError, RirDeployError
from rir_deploy.notices import notice
from rir_deploy.pipeline.bench_contenders import Contender

WORKER = "rir_deploy.pipeline.bench_worker"


@dataclass
class Trial:
    """What the rounds have brought so far is in ``answers``."""

    contender: Contender
    batch: int
    mode: str
    answers: list[Job] = field(default_factory=list)
    error: RirDeployError | None = None

    @property
    def rounds(self) -> list[Samples]:
        return [
            Samples(tuple(one["times_ns"]), one["first_ns"], one["warmup_runs"], one["elapsed_ns"])
            for one in self.answers
        ]


def take_turn(trial: Trial, shared: dict[str, Any]) -> None:
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
        "mode": trial.mode,
        "channels_last": contender.channels_last,
    }
    try:
        answer = run_job(WORKER, job, f"'{contender.name}' at batch {batch}")
        for text in answer.pop("notices", []):
            notice(text)
        trial.answers.append(answer)
    except BackendError as error:
        trial.error = BackendError(str(error).replace(str(contender.path), contender.name))
        trial.answers.clear()  # half of its rounds would not have seen what the others' have


def row_of(trial: Trial, options: BenchOptions, gpu: dict[str, object]) -> BenchRow:
    """The row; ``gpu`` is how TensorRT's engines were run."""
    contender = trial.contender
    head = (contender.name, contender.backend, contender.precision, trial.batch)
    details: dict[str, object] = {"kind": contender.kind, "sha256": contender.sha256, "threads": options.threads}
    if contender.backend.startswith("tensorrt"):
        details |= gpu
    if not trial.answers:
        return BenchRow(*head, None, str(trial.error or "not yet"), details, trial.mode)
    first = trial.answers[0]
    streams = first["streams"] if trial.mode == PIPELINED else None
    record = summarize(trial.rounds, trial.batch, options.all_percentiles, streams)
    times = _gpu_times(trial.answers)
    details |= {"runs_on": first["runs_on"], "input": first["input"], **_start(trial.answers)}
    details |= {"gpu_ms": {name: _figures(values) for name, values in times.items()}} if times else {}
    return BenchRow(
        *head, replace(record, warnings=(*record.warnings, *_doubts(trial, record, times))), "", details, trial.mode
    )


def _start(answers: Sequence[Job]) -> dict[str, object]:
    """Medians of all fresh processes, and the largest memory: what an engine costs before it answers."""
    peaks = [one["peak_mb"] for one in answers if one["peak_mb"] is not None]
    grown = [one["peak_mb"] - one["held_mb"] for one in answers if None not in (one["peak_mb"], one["held_mb"])]
    return {
        "import_ms": statistics.median(one["import_ms"] for one in answers),
        "load_ms": statistics.median(one["load_ms"] for one in answers),
        "first_inference_ms": statistics.median(one["first_ns"] for one in answers) / 1e6,
        "peak_memory_mb": max(peaks, default=None),
        "engine_memory_mb": max(grown, default=None),
    }


def _gpu_times(answers: Sequence[Job]) -> dict[str, list[float]]:
    """By CUDA events, of all rounds, in ascending order."""
    names = answers[0]["gpu_ms"]
    return {name: sorted(ms for one in answers for ms in one["gpu_ms"][name]) for name in names}


def _figures(ordered: Sequence[float]) -> dict[str, float]:
    return {
        "min": ordered[0],
        "mean": statistics.fmean(ordered),
        "median": statistics.median(ordered),
        **{f"p{percentile}": percentile_of(ordered, percentile) for percentile in (90, 95, 99)},
        "max": ordered[-1],
    }


def _doubts(trial: Trial, record: LatencyRecord, times: dict[str, list[float]]) -> list[str]:
    """What the process itself saw."""
    found = []
    rates = [one["preemptions_per_s"] for one in trial.answers if one["preemptions_per_s"] is not None]
    if rates and trial.mode != PIPELINED:  # whose threads, several a core, put each other aside
        found.append(preempted(statistics.median(rates)))
    if times:
        found.append(host_bound(statistics.median(times["enqueue"]), statistics.median(times["compute"])))
    return [doubt for doubt in found if doubt is not None]
