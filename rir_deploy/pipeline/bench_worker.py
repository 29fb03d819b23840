"""The process in which one engine is timed: ``python -m rir_deploy.pipeline.bench_worker``, a job as JSON on stdin.

What is timed is one synchronous call with its input and output in host memory: the runtime's own copies are part of
it, preprocessing is not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rir_deploy.bench.latency import time_callable
from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.process import Job, serve
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import Array, GpuOptions, Session, TensorSpec
from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import Manifest, check_engine
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import load_onnx

SEED = 0
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Opened:
    """A model ready to be called with the one batch that it is timed on; ``runs_on`` is asked when it has run."""

    run: Callable[[], object]
    runs_on: Callable[[], str]
    input: TensorSpec


def main() -> int:
    return serve(work)


def work(job: Job) -> Job:
    """Time one contender at one batch size.

    The job: ``path``, ``kind`` ("engine", "onnx", "checkpoint"), ``batch``, ``threads``, ``options`` (a
    `BenchOptions` as plain data), and optionally ``image`` ([C, H, W], where the model does not say), ``factory`` and
    ``channels_last`` (checkpoints), ``trust``, ``cuda_graph`` and ``runtime_cache`` (engines).

    Raises:
        RirDeployError: of the class that the loaders raise.
    """
    options = BenchOptions.from_dict(job["options"])
    started = time.perf_counter()
    with open_contender(job) as opened:
        load_ms = 1000 * (time.perf_counter() - started)
        samples = time_callable(opened.run, options)
        return {
            "times_ns": list(samples.times_ns),
            "first_ns": samples.first_ns,
            "warmup_runs": samples.warmup_runs,
            "load_ms": load_ms,
            "runs_on": opened.runs_on(),
            "input": opened.input.to_dict(),
        }


@contextmanager
def open_contender(job: Job) -> Iterator[Opened]:
    """Open what a job names, and make its input."""
    image: ImageShape | None = tuple(job["image"]) if job.get("image") else None
    if job["kind"] == "checkpoint":
        yield _open_checkpoint(job, image)
        return
    with _open_session(job) as session:
        spec = session.input
        batch = random_batch(spec, job["batch"], image)
        note = " (trusted: not checked against its manifest)" if job.get("trust") and job["kind"] == "engine" else ""
        yield Opened(lambda: session.run(batch), lambda: session.runs_on + note, _spec_of(spec.name, batch))


def _open_session(job: Job) -> Session:
    path = Path(job["path"])
    if job["kind"] != "engine":
        load_onnx(path)
        return get_backend("onnxruntime").load(path, job["threads"], exclusive=True)
    trust = bool(job.get("trust"))
    manifest = check_engine(path, trust=trust)
    return load_engine(path, manifest, job["threads"], exclusive=True, trust=trust, gpu=_gpu_options(job, manifest))


def _gpu_options(job: Job, manifest: Manifest) -> GpuOptions:
    """For the engines that they are meant for; the others are timed beside them as they are."""
    if not manifest.backend.startswith("tensorrt"):
        return GpuOptions()
    cache = job.get("runtime_cache") if manifest.backend == "tensorrt-rtx" else None
    return GpuOptions(bool(job.get("cuda_graph")), None if cache is None else Path(cache))


def _open_checkpoint(job: Job, image: ImageShape | None) -> Opened:
    from rir_deploy.pipeline.checkpoints import load_module

    loaded = load_module(Path(job["path"]), job.get("factory"))
    import torch

    torch.set_num_threads(job["threads"])
    shape = loaded.input_shape or image or (None, None, None)
    batch = random_batch(TensorSpec("image", "float32", (None, *shape)), job["batch"], image)
    layout = torch.channels_last if job.get("channels_last") else torch.contiguous_format
    module = loaded.module.eval().to(memory_format=layout)  # type: ignore[call-overload]
    tensor = torch.from_numpy(batch).contiguous(memory_format=layout)

    def run() -> object:
        with torch.inference_mode():
            return module(tensor)

    runs_on = f"torch {torch.__version__} cpu eager{' channels-last' if job.get('channels_last') else ''}"
    return Opened(run, lambda: runs_on, _spec_of("image", batch))


def random_batch(spec: TensorSpec, batch: int, image: ImageShape | None, seed: int = SEED) -> Array:
    """Seeded random images as an input takes them: uint8 pixels [N, H, W, C], or normal floats [N, C, H, W].

    ``image`` (C, H, W) stands in for sizes that the input leaves open.

    Raises:
        UsageError: a size is open and no ``image`` given, or the two disagree.
        InputError: an input of another type.
    """
    dtype = np.dtype(spec.dtype)
    if dtype != np.uint8 and dtype.kind != "f":
        raise InputError(f"the input '{spec.name}' takes {spec.dtype}; only float and uint8 images can be made up")
    given = None if image is None else (*image[1:], image[0]) if dtype == np.uint8 else image
    shape = (batch, *_fill(spec, given))
    random = np.random.default_rng(seed)
    if dtype == np.uint8:
        return random.integers(0, 256, size=shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32).astype(dtype)


def _fill(spec: TensorSpec, given: tuple[int, ...] | None) -> tuple[int, ...]:
    sizes = spec.shape[1:]
    if given is None:
        if None in sizes:
            raise UsageError(f"the input '{spec.name}' leaves its image size open; name one with --recipe")
        return tuple(size for size in sizes if size is not None)
    if len(sizes) != len(given) or any(size not in (None, want) for size, want in zip(sizes, given, strict=True)):
        open_sizes = "x".join("N" if size is None else str(size) for size in sizes)
        raise UsageError(
            f"the recipe's images are {'x'.join(map(str, given))} and the input '{spec.name}' takes {open_sizes}; "
            "leave --recipe out or name the right one"
        )
    return given


def _spec_of(name: str, batch: Array) -> TensorSpec:
    return TensorSpec(name, str(batch.dtype), batch.shape)


if __name__ == "__main__":
    sys.exit(main())
