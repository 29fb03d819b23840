"""doctor: what this machine can do, found out by doing it."""

from __future__ import annotations

import importlib.metadata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rir_deploy import __version__
from rir_deploy.bench.machine import Machine, read_machine
from rir_deploy.bench.process import run_job
from rir_deploy.engines import BACKENDS
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu, cuda_version, probe_gpu
from rir_deploy.errors import RirDeployError

WORKER = "rir_deploy.pipeline.doctor_worker"
_HOST = 'python -m pip install "rir-deploy[host]"'
_HERE = "python -m pip install rir-deploy"
# What the stages that are not engines need, and the line that brings it.
LIBRARIES = {
    "numpy": _HERE,
    "onnx": _HERE,
    "onnx-ir": _HERE,
    "torch": _HOST,
    "onnxscript": _HOST,
    "scikit-learn": _HOST,
    "cuda-bindings": "python -m pip install cuda-python",
}
TRIED_AT_ONCE = 3
# Only NVIDIA's boards have it: the release of their Linux, "# R36 (release), REVISION: 4.0, ...".
TEGRA = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class BackendReport:
    """``works`` is what was seen: "runs", "builds" (without hardware to run on), or "no".

    ``detail`` is what it ran on, or why it did not; ``max_abs_error`` the largest difference from numpy of what it
    computed.
    """

    backend: str
    version: str | None
    works: str
    detail: str
    install: str
    max_abs_error: float | None = None


@dataclass(frozen=True)
class Library:
    """``version`` None: it is missing, and ``install`` brings it."""

    name: str
    version: str | None
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """``gpu`` and ``cuda`` are the driver's own words; ``tegra`` is the release of a Jetson's Linux."""

    tool: str
    machine: Machine
    gpu: str
    cuda: str | None
    tegra: str | None
    libraries: tuple[Library, ...]
    backends: tuple[BackendReport, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether any backend does."""
        return any(backend.works == "runs" for backend in self.backends)

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "runs": self.runs}


def diagnose() -> Diagnosis:
    """Look at the machine, and build and run a tiny model with every backend, each in a process of its own."""
    machine, gpu = read_machine(), probe_gpu()
    with ThreadPoolExecutor(TRIED_AT_ONCE) as pool:
        backends = tuple(pool.map(_try, BACKENDS))
    return Diagnosis(
        f"rir-deploy {__version__}",
        machine,
        gpu.label if isinstance(gpu, Gpu) else f"none: {gpu.reason}",
        cuda_version(),
        _tegra(),
        tuple(Library(name, _version(name), install) for name, install in LIBRARIES.items()),
        backends,
        tuple(_notes(machine, gpu)),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tegra() -> str | None:
    try:
        return TEGRA.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip("# ")
    except (OSError, IndexError):
        return None


def _notes(machine: Machine, gpu: Gpu | NoGpu) -> list[str]:
    notes = []
    if isinstance(gpu, NoGpu):
        notes.append(f"no GPU ({gpu.reason}): TensorRT engines can be built where offered, not run")
    if not machine.has_vnni:
        notes.append("this CPU has no VNNI: ONNX Runtime may saturate uint8 x int8 sums, use a reduced range for INT8")
    if _version("onnxruntime") is not None and _version("onnxruntime-gpu") is not None:
        notes.append("onnxruntime and onnxruntime-gpu overwrite each other: keep one of them")
    return notes


def _try(name: str) -> BackendReport:
    try:
        return BackendReport(name, **run_job(WORKER, {"backend": name}, name))
    except RirDeployError as error:  # the process died, and says of what
        return BackendReport(name, None, "no", str(error), "install it again, or another version of it")
