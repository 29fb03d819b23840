"""The process in which ceilings are measured: ``python -m rir_deploy.pipeline.roofline_worker``, a job on stdin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rir_deploy.bench.latency import time_callable
from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.process import Job, serve
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import Array, BatchRange, BuildOptions, TensorSpec, input_spec
from rir_deploy.engines.openvino_profile import run_in_bf16
from rir_deploy.errors import BackendError
from rir_deploy.file_system import scratch_folder
from rir_deploy.pipeline.roofline_graphs import chain_graph
from rir_deploy.pipeline.roofline_profile import profile_layers
from rir_deploy.roofline.ceilings import Ceiling, Probe
from rir_deploy.roofline.copies import measure_copy
from rir_deploy.roofline.shapes import Shape

_WARMUP_MS = 50


def main() -> int:
    return serve(work)


def work(job: Job) -> Job:
    """One of three: the speed of shapes on a backend, the bandwidth of copies, the time of an engine's layers.

    The job: ``kind`` ("shapes", "copies", "layers"), ``threads`` and ``seconds`` (a shape or a copy); ``probes`` of one
    backend and precision; ``sizes``; what `profile_layers` reads.

    Raises:
        RirDeployError: of the class that the backend raises.
    """
    kinds: dict[str, Callable[[Job], Job]] = {"shapes": _shapes, "copies": _copies, "layers": profile_layers}
    return kinds[job["kind"]](job)


def _shapes(job: Job) -> Job:
    probes = [Probe.from_dict(one) for one in job["probes"]]
    return {"measured": [measure(probe, job["threads"], job["seconds"]).to_dict() for probe in probes]}


def _copies(job: Job) -> Job:
    return {"copies": [asdict(measure_copy(size, job["threads"], job["seconds"])) for size in job["sizes"]]}


def measure(probe: Probe, threads: int, seconds: float) -> Ceiling:
    """The speed of one shape, by its fastest call: what was reached once is what the machine can do.

    Raises:
        BackendError: the backend is not here, or does not compute in this precision on this CPU.
    """
    shape = probe.shape
    options = BenchOptions(warmup_ms=_WARMUP_MS, duration_s=seconds, iterations=5)
    with scratch_folder() as folder, _opened(probe, folder, threads) as run:
        times = time_callable(run, options).times_ns
    return Ceiling(probe, shape.macs / min(times))


@contextmanager
def _opened(probe: Probe, folder: Path, threads: int) -> Iterator[Callable[[], object]]:
    """One call of the shape, ready to be timed.

    BF16 is what OpenVINO makes of an FP32 graph where it is asked to: no engine of this tool runs so.
    """
    backend, size = get_backend(probe.backend), probe.shape.batch
    narrow = probe.precision == "bf16"
    model = chain_graph(probe.shape, "fp32" if narrow else probe.precision)
    batch = _fill(input_spec(model), probe.shape)
    built = backend.build(model, folder, BuildOptions(BatchRange(size, size, size)))
    if narrow:
        if probe.backend != "openvino":
            raise BackendError(f"{probe.backend} does not compute in BF16 on a CPU; measure it with openvino")
        call = run_in_bf16(folder / built.file, threads)
        yield lambda: call(batch)
        return
    with backend.load(folder / built.file, threads, exclusive=True) as session:
        yield lambda: session.run(batch)


def _fill(spec: TensorSpec, shape: Shape) -> Array:
    random, sizes = np.random.default_rng(0), (shape.batch, shape.channels_in, *shape.size)
    if np.dtype(spec.dtype) == np.uint8:
        return random.integers(0, 256, sizes, dtype=np.uint8)
    return random.standard_normal(sizes, dtype=np.float32).astype(spec.dtype)


if __name__ == "__main__":
    sys.exit(main())
