"""What is to be timed, opened in the process in which it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rir_deploy.bench.memory import held_mb
from rir_deploy.bench.options import PIPELINED
from rir_deploy.bench.process import Job
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import Session, TensorSpec
from rir_deploy.engines.gpu_options import GpuOptions, GpuTimes
from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import Manifest, check_engine
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.bench_images import ImageShape, random_batch, spec_of


@dataclass(frozen=True)
class Start:
    """What came before the first request: the runtime's own import, the engine's loading, and the memory held between
    the two (None where the system does not say).
    """

    import_ms: float
    load_ms: float
    held_mb: float | None


@dataclass(frozen=True)
class Opened:
    """A model ready to be called, from ``streams`` threads at once, with the one batch that it is timed on.

    ``runs_on`` is asked when it has run; ``gpu_times`` grows by every run, on the backends that have CUDA events.
    """

    run: Callable[[], object]
    runs_on: Callable[[], str]
    input: TensorSpec
    streams: int
    start: Start
    gpu_times: list[GpuTimes] = field(default_factory=list)


@contextmanager
def open_contender(job: Job) -> Iterator[Opened]:
    """Open what a job names (see `bench_worker.work`), and make its input."""
    image: ImageShape | None = tuple(job["image"]) if job.get("image") else None
    if job["kind"] == "checkpoint":
        yield _open_checkpoint(job, image)
        return
    times: list[GpuTimes] = []
    session, start = _open_session(job, times)
    with session:
        spec = session.input
        batch = random_batch(spec, job["batch"], image)
        note = " (trusted: not checked against its manifest)" if job.get("trust") and job["kind"] == "engine" else ""
        given = spec_of(spec.name, batch)
        yield Opened(lambda: session.run(batch), lambda: session.runs_on + note, given, session.streams, start, times)


def _open_session(job: Job, times: list[GpuTimes]) -> tuple[Session, Start]:
    """Files are checked before anything is timed: hashing them is no part of a runtime's loading."""
    path, threads, streams = Path(job["path"]), job["threads"], _streams(job)
    if job["kind"] != "engine":
        load_onnx(path)
        backend = get_backend("onnxruntime")
        return _timed(backend.import_runtime, lambda: backend.load(path, threads, exclusive=True, streams=streams))
    trust = bool(job.get("trust"))
    manifest = check_engine(path, trust=trust)
    gpu = _gpu_options(job, manifest, times)
    return _timed(
        get_backend(manifest.backend).import_runtime,
        lambda: load_engine(path, manifest, threads, exclusive=True, trust=trust, gpu=gpu, streams=streams),
    )


def _timed(bring: Callable[[], None], load: Callable[[], Session]) -> tuple[Session, Start]:
    began = time.perf_counter()
    bring()
    imported, held = time.perf_counter(), held_mb()
    session = load()
    loaded = time.perf_counter()
    return session, Start(1000 * (imported - began), 1000 * (loaded - imported), held)


def _streams(job: Job) -> int | None:
    """1 for one request after another; when pipelined, those asked for, or None for what the runtime recommends."""
    return job.get("streams") if job.get("mode") == PIPELINED else 1


def _gpu_options(job: Job, manifest: Manifest, times: list[GpuTimes]) -> GpuOptions:
    """For the engines that they are meant for; the others are timed beside them as they are."""
    if not manifest.backend.startswith("tensorrt"):
        return GpuOptions()
    cache = job.get("runtime_cache") if manifest.backend == "tensorrt-rtx" else None
    return GpuOptions(
        bool(job.get("cuda_graph")), None if cache is None else Path(cache), job.get("transfers", True), times.append
    )


def _open_checkpoint(job: Job, image: ImageShape | None) -> Opened:
    began = time.perf_counter()
    import torch

    from rir_deploy.pipeline.checkpoints import load_module

    imported, held = time.perf_counter(), held_mb()
    loaded = load_module(Path(job["path"]), job.get("factory"), weights=job.get("weights"))
    streams = _streams(job) or job["threads"]
    torch.set_num_threads(max(1, job["threads"] // streams))  # each caller has threads of its own
    shape = loaded.input_shape or image or (None, None, None)
    batch = random_batch(TensorSpec("image", "float32", (None, *shape)), job["batch"], image)
    layout = torch.channels_last if job.get("channels_last") else torch.contiguous_format
    module = loaded.module.eval().to(memory_format=layout)  # type: ignore[call-overload]
    tensor = torch.from_numpy(batch).contiguous(memory_format=layout)
    start = Start(1000 * (imported - began), 1000 * (time.perf_counter() - imported), held)

    def run() -> object:
        with torch.inference_mode():
            return module(tensor)

    runs_on = f"torch {torch.__version__} cpu eager{' channels-last' if job.get('channels_last') else ''}"
    return Opened(run, lambda: runs_on, spec_of("image", batch), streams, start)
