"""What of two runs cannot be compared: other images, machines, checkpoints, ways of timing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rir_deploy.report import text
from rir_deploy.report.schema import Run


def data_of(run: Run) -> tuple[str, int]:
    """The name of the test images, and how many."""
    images = max((engine.verify.images for engine in run.engines if engine.verify is not None), default=0)
    return text.file_name(run.data), images


def machine_of(run: Run) -> tuple[str, str, object]:
    """CPU, GPUs and threads that a run was timed with."""
    machine = run.machine if run.bench is None else run.bench.machine
    threads = None if run.bench is None else run.bench.settings.get("threads")
    return machine.cpu, ", ".join(machine.gpus), threads


def gpu_calls_of(run: Run) -> str:
    """How TensorRT's engines were timed; empty where none was."""
    rows = () if run.bench is None else run.bench.results
    found = next((one for one in rows if one.latency_ms is not None and one.cuda_graph is not None), None)
    if found is None:
        return ""
    graph, copies = ("with" if used else "without" for used in (found.cuda_graph, found.transfers))
    return f"{graph} a CUDA graph and {copies} the copies to and from the GPU"


def differences(names: Sequence[str], runs: Sequence[Run]) -> Iterator[str]:
    """What differs from the first run."""
    first = runs[0]
    for name, run in list(zip(names, runs, strict=True))[1:]:
        if run.model.sha256 != first.model.sha256:
            yield (
                f"{name} is of another checkpoint ({run.model.checkpoint}, {text.short_hash(run.model.sha256)}): "
                "agreement and SQNR are against each run's own"
            )
        if data_of(run) != data_of(first):
            (data, images), (other, count) = data_of(run), data_of(first)
            yield (
                f"{name} was verified on {text.plural(images, 'image')} of {data}, {names[0]} on {count:,} of {other}: "
                "accuracy, agreement and SQNR are not judged"
            )
        untimed = [named for named, one in ((names[0], first), (name, run)) if one.bench is None]
        if untimed:
            yield f"{' and '.join(untimed)} was not timed: latency is not judged"
        elif machine_of(run) != machine_of(first):
            own, its = (" on ".join(_place(one)) for one in (run, first))
            yield f"{name} was timed with {own}, {names[0]} with {its}: latency is not judged"
        own, its = gpu_calls_of(run), gpu_calls_of(first)
        if own and its and own != its:
            yield f"{name} timed TensorRT's engines {own}, {names[0]} {its}: their latency is not judged"
        if run.tool != first.tool:
            yield f"{name} is by {run.tool}, {names[0]} by {first.tool}"


def _place(run: Run) -> tuple[str, str]:
    cpu, gpus, threads = machine_of(run)
    return f"{text.words(threads)} threads", ", ".join(word for word in (cpu, gpus) if word)
