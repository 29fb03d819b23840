"""The process in which one engine is timed: ``python -m rir_deploy.pipeline.bench_worker``, a job as JSON on stdin.

A request is timed with its input and output in host memory: the runtime's own copies are part of it, preprocessing is
not.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import asdict

from rir_deploy.bench.latency import Samples, time_callable
from rir_deploy.bench.memory import peak_mb
from rir_deploy.bench.options import PIPELINED, BenchOptions
from rir_deploy.bench.pipelined import time_pipelined
from rir_deploy.bench.process import Job, serve
from rir_deploy.engines.gpu_options import GpuTimes
from rir_deploy.notices import Notice
from rir_deploy.pipeline.bench_open import open_contender

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


def main() -> int:
    return serve(work)


def work(job: Job) -> Job:
    """Time one contender at one batch size in one mode.

    The job: ``path``, ``kind`` ("engine", "onnx", "checkpoint"), ``batch``, ``threads``, ``options`` (a
    `BenchOptions` as plain data), ``mode``, and optionally ``streams`` (when pipelined), ``image`` ([C, H, W], where
    the model does not say), ``factory``, ``weights`` and ``channels_last`` (checkpoints), ``trust``, ``cuda_graph``,
    ``runtime_cache`` and ``transfers`` (engines).

    Raises:
        RirDeployError: of the class that the loaders raise.
    """
    options = BenchOptions.from_dict(job["options"])
    with warnings.catch_warnings(record=True) as said, open_contender(job) as opened:
        before, began = _preemptions(), time.perf_counter()
        if job["mode"] == PIPELINED:
            samples = time_pipelined(opened.run, opened.streams, options)
        else:
            samples = time_callable(opened.run, options)
        after, seconds = _preemptions(), time.perf_counter() - began
        return {
            **asdict(samples),
            **asdict(opened.start),
            "streams": opened.streams,
            "peak_mb": peak_mb(),
            "preemptions_per_s": None if before is None or after is None else (after - before) / seconds,
            "gpu_ms": _gpu_ms(opened.gpu_times, samples),
            "runs_on": opened.runs_on(),
            "input": opened.input.to_dict(),
            "notices": [str(one.message) for one in said if issubclass(one.category, Notice)],
        }


def _preemptions() -> int | None:
    """How often a thread of this process had to leave its core to another one."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _gpu_ms(times: list[GpuTimes], samples: Samples) -> dict[str, list[float | None]]:
    """Of the timed requests, by part; nothing where there are no CUDA events."""
    timed = times[samples.warmup_runs :][: len(samples.times_ns)]
    columns = {
        name: [getattr(one, f"{name}_ms") for one in timed] for name in ("upload", "compute", "download", "enqueue")
    }
    return {name: values for name, values in columns.items() if values and None not in values}


if __name__ == "__main__":
    sys.exit(main())
