"""TensorRT, full (10.3 to 11) and RTX: one backend, the module a parameter.

Building with RTX needs no GPU; everything else does. Building has been run with RTX 1.7 without a GPU, where a build
proves that a graph parses and compiles, not that it runs. Loading and running have not yet been run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rir_deploy.engines.base import Availability, BuildOptions, Built
from rir_deploy.engines.cuda_buffers import load_cudart
from rir_deploy.engines.tensorrt_build import build_plan, known_targets
from rir_deploy.engines.tensorrt_flavour import TENSORRT, Flavour, load_module
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu, probe_gpu
from rir_deploy.engines.tensorrt_inspect import summarize
from rir_deploy.engines.tensorrt_session import TensorRtSession
from rir_deploy.errors import BackendError, RirDeployError


@dataclass(frozen=True)
class TensorRtBackend:
    flavour: Flavour

    @property
    def name(self) -> str:
        return self.flavour.backend

    def availability(self) -> Availability:
        flavour = self.flavour
        try:
            module = load_module(flavour)
        except BackendError as error:
            return Availability(self.name, False, False, None, str(error), flavour.install)
        gpu = probe_gpu()
        reason = _why_not(module, flavour, gpu)
        can_build = flavour.portable or isinstance(gpu, Gpu)
        return Availability(self.name, can_build, not reason, str(module.__version__), reason, flavour.install)

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the plan; `realized` holds what the inspector says where the engine can be loaded here.

        Raises:
            BackendError, InputError, UsageError: as `tensorrt_build.build_plan` does, or no GPU where one is needed.
        """
        module, gpu = load_module(self.flavour), probe_gpu()
        if isinstance(gpu, NoGpu) and not self.flavour.portable:
            raise BackendError(
                f"{self.flavour.label} builds on a machine with a GPU only: {gpu.reason}; "
                "build there, or take --backend tensorrt-rtx"
            )
        plan = build_plan(module, self.flavour, gpu if isinstance(gpu, Gpu) else None, model, options)
        path = folder / self.flavour.engine_file
        path.write_bytes(plan.data)
        realized = self._inspect(path) if isinstance(gpu, Gpu) else {"inspected": False, "reason": "no GPU"}
        return Built(path.name, self.name, str(module.__version__), plan.targets, realized)

    def load(self, engine: Path, threads: int | None = None, *, exclusive: bool = False) -> TensorRtSession:
        """Open an engine on the first GPU. ``threads`` is a CPU's affair and ignored.

        Raises:
            BackendError: no runtime, driver or GPU here, or the engine is not for this one.
        """
        module, gpu = load_module(self.flavour), probe_gpu()
        if isinstance(gpu, NoGpu):
            raise BackendError(
                f"{self.flavour.label} cannot run '{engine}' here: {gpu.reason}; "
                "copy the engine's folder to a machine with an NVIDIA GPU"
            )
        return TensorRtSession(module, self.flavour, gpu, engine, load_cudart(self.flavour.install))

    def _inspect(self, path: Path) -> dict[str, object]:
        """An engine built for another GPU cannot be loaded here: that is no error of the build."""
        try:
            with self.load(path) as session:
                return {**summarize(session.layers()), "runs_on": session.runs_on}
        except RirDeployError as error:
            return {"inspected": False, "reason": str(error)}


def _why_not(module: Any, flavour: Flavour, gpu: Gpu | NoGpu) -> str:
    """Why engines do not run here; "" where they do."""
    if isinstance(gpu, NoGpu):
        return gpu.reason
    try:
        load_cudart(flavour.install)
    except BackendError as error:
        return str(error)
    known = known_targets(module) if flavour.portable else ()
    if known and gpu.target not in known and _number(gpu.target) < _number(known[-1]):
        return f"{flavour.label} has no kernels for {gpu.name} ({gpu.target}; it knows {', '.join(known)} and later)"
    return ""


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))


BACKEND = TensorRtBackend(TENSORRT)
