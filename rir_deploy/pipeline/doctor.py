"""doctor: what this machine can do, found out by doing it."""

from __future__ import annotations

import importlib.metadata
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from rir_deploy import __version__
from rir_deploy.bench.machine import Machine, read_machine
from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.base import Backend, BuildOptions
from rir_deploy.errors import RirDeployError

# What the stages that are not engines need, and the extra that brings it.
LIBRARIES = {
    "torch": "host",
    "onnxscript": "host",
    "scikit-learn": "host",
    "onnx": "",
    "onnx-ir": "",
    "numpy": "",
}


@dataclass(frozen=True)
class BackendReport:
    """``works`` is what was seen: "runs", "builds" (without hardware to run on), or "no"."""

    backend: str
    version: str | None
    works: str
    detail: str
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """``libraries`` maps a name to its version, None where it is missing; ``notes`` are things worth knowing."""

    tool: str
    machine: Machine
    libraries: dict[str, str | None]
    backends: tuple[BackendReport, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def diagnose() -> Diagnosis:
    """Look at the machine, and build and run a tiny model with every backend."""
    machine = read_machine()
    return Diagnosis(
        f"rir-deploy {__version__}",
        machine,
        {name: _version(name) for name in LIBRARIES},
        tuple(_try(get_backend(name)) for name in BACKENDS),
        tuple(_notes(machine)),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _notes(machine: Machine) -> list[str]:
    notes = []
    if not machine.gpus:
        notes.append("no NVIDIA GPU or driver was found: TensorRT engines can be built where offered, not run")
    if not machine.has_vnni:
        notes.append("this CPU has no VNNI: ONNX Runtime may saturate uint8 x int8 sums, use a reduced range for INT8")
    missing = [name for name, extra in LIBRARIES.items() if extra and _version(name) is None]
    if missing:
        notes.append(
            f'{", ".join(missing)} missing: python -m pip install "rir-deploy[host]" brings export and training'
        )
    if _version("onnxruntime") is not None and _version("onnxruntime-gpu") is not None:
        notes.append("onnxruntime and onnxruntime-gpu overwrite each other: keep one of them")
    return notes


def _try(backend: Backend) -> BackendReport:
    found = backend.availability()
    if not found.can_build:
        return BackendReport(backend.name, found.version, "no", found.reason, found.install)
    try:
        with tempfile.TemporaryDirectory() as folder:
            detail = _build_and_run(backend, Path(folder), run=found.can_run)
    except RirDeployError as error:
        return BackendReport(backend.name, found.version, "no", str(error), found.install)
    works = "runs" if found.can_run else "builds"
    return BackendReport(backend.name, found.version, works, detail or found.reason, found.install)


def _build_and_run(backend: Backend, folder: Path, *, run: bool) -> str:
    model = _tiny_model()
    built = backend.build(model, folder, BuildOptions())
    if not run:
        return ""
    with backend.load(folder / built.file) as session:
        (output,) = session.run(np.ones((1, 3, 8, 8), dtype=np.float32)).values()
        if not np.allclose(output, 27.0):  # 3 channels of 3x3 ones
            raise RirDeployError(f"{backend.name} computed {output.flat[0]} where 27 is right: do not trust it here")
        return session.runs_on


def _tiny_model() -> ir.Model:
    """One 3x3 convolution of ones, without padding."""
    weight = ir.tensor(np.ones((4, 3, 3, 3), dtype=np.float32), name="weight")
    float32 = ir.TensorType(ir.DataType.FLOAT)
    kernel = ir.Value(name="weight", const_value=weight, type=float32, shape=ir.Shape([4, 3, 3, 3]))
    image = ir.Value(name="input", type=float32, shape=ir.Shape(["batch", 3, 8, 8]))
    output = ir.Value(name="output", type=float32, shape=ir.Shape(["batch", 4, 6, 6]))
    attributes = [ir.AttrInt64s("kernel_shape", [3, 3])]
    node = ir.Node("", "Conv", [image, kernel], attributes, outputs=[output], name="conv")
    graph = ir.Graph([image], [output], nodes=[node], initializers=[kernel], opset_imports={"": 18}, name="doctor")
    return ir.Model(graph, ir_version=8)
