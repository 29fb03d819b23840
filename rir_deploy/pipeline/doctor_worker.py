"""The process in which doctor tries a backend: ``python -m rir_deploy.pipeline.doctor_worker``, a job as JSON on stdin.

A process of its own, since what is wrong with a runtime or a driver may end it.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rir_deploy.bench.process import Job, serve
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import Backend, BatchRange, BuildOptions
from rir_deploy.errors import BackendError, RirDeployError
from rir_deploy.file_system import scratch_folder

# A sum of 27 products of numbers around 1, in FP32, in whatever order.
TOLERANCE = 1e-4
Floats = NDArray[np.float32]


def main() -> int:
    return serve(work)


def work(job: Job) -> Job:
    """What became of the backend that the job names, as `doctor.BackendReport` has it."""
    backend = get_backend(job["backend"])
    found = backend.availability()
    answer: Job = {"version": found.version, "works": "no", "detail": found.reason, "install": found.install}
    if not found.can_build:
        return answer
    try:
        runs_on, error = try_backend(backend, run=found.can_run)
    except RirDeployError as refusal:
        return {**answer, "detail": str(refusal)}
    if runs_on is None:
        return {**answer, "works": "builds"}
    return {**answer, "works": "runs", "detail": runs_on, "max_abs_error": error}


def try_backend(backend: Backend, *, run: bool) -> tuple[str | None, float | None]:
    """Build the tiny model and, with ``run``, compare what it computes with numpy.

    Returns where it ran and the largest difference; None for both without ``run``.

    Raises:
        RirDeployError: as the backend does.
        BackendError: it computes something else.
    """
    kernel, bias, image = tiny_data()
    with scratch_folder() as folder:
        built = backend.build(tiny_model(kernel, bias), folder, BuildOptions(BatchRange(1, 2, 4)))
        if not run:
            return None, None
        with backend.load(folder / built.file) as session:
            (output,) = session.run(image).values()
            error = float(np.abs(output.astype(np.float32) - convolve(kernel, bias, image)).max())
            if not error < TOLERANCE:
                raise BackendError(
                    f"{backend.name} computes a convolution that is {error:g} off: do not trust it on this machine"
                )
            return session.runs_on, error


def tiny_data() -> tuple[Floats, Floats, Floats]:
    """Kernel [4, 3, 3, 3], bias [4] and images [2, 3, 8, 8]."""
    random = np.random.default_rng(0)
    kernel, bias, image = (random.standard_normal(shape, np.float32) for shape in ((4, 3, 3, 3), 4, (2, 3, 8, 8)))
    return kernel, bias, image


def tiny_model(kernel: Floats, bias: Floats) -> ir.Model:
    """One convolution without padding, then Relu."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    weights = [
        ir.Value(name=name, const_value=ir.tensor(data, name=name), type=float32, shape=ir.Shape(data.shape))
        for name, data in (("kernel", kernel), ("bias", bias))
    ]
    image, sums, output = (
        ir.Value(name=name, type=float32, shape=ir.Shape(["batch", *sizes]))
        for name, sizes in (("image", (3, 8, 8)), ("sums", (4, 6, 6)), ("output", (4, 6, 6)))
    )
    nodes = [
        ir.Node("", "Conv", [image, *weights], [ir.AttrInt64s("kernel_shape", [3, 3])], outputs=[sums], name="conv"),
        ir.Node("", "Relu", [sums], outputs=[output], name="relu"),
    ]
    graph = ir.Graph([image], [output], nodes=nodes, initializers=weights, opset_imports={"": 18}, name="doctor")
    return ir.Model(graph, ir_version=8)


def convolve(kernel: Floats, bias: Floats, image: Floats) -> Floats:
    """The same by numpy: every 3x3 window of the images times the kernel."""
    windows = sliding_window_view(image, kernel.shape[2:], axis=(2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, kernel) + bias[:, None, None]
    return np.asarray(np.maximum(sums, 0), np.float32)


if __name__ == "__main__":
    sys.exit(main())
