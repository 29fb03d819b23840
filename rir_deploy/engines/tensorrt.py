"""TensorRT, full (10.3 to 11) and RTX: one backend, the module a parameter.

Building with RTX needs no GPU; everything else does. Building has been run with RTX 1.7 without a GPU, where a build
proves that a graph parses and compiles, not that it runs. Loading and running have not yet been run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from rir_deploy.engines.base import GRAPH_NAME, Availability, BuildOptions, Built
from rir_deploy.engines.cuda_stream import load_cudart
from rir_deploy.engines.folder import nothing_left
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.graph import graph_precision
from rir_deploy.engines.manifest import Manifest
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_build import build_plan
from rir_deploy.engines.tensorrt_flavour import TENSORRT, Flavour, load_module
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu, probe_gpu
from rir_deploy.engines.tensorrt_inspect import read_build_log, read_inspector, summarize
from rir_deploy.engines.tensorrt_match import why_not_here
from rir_deploy.engines.tensorrt_open import plan_name
from rir_deploy.engines.tensorrt_options import refuse_options
from rir_deploy.engines.tensorrt_session import TensorRtSession
from rir_deploy.engines.tensorrt_targets import choose_targets, known_targets
from rir_deploy.errors import BackendError, RirDeployError


@dataclass(frozen=True)
class TensorRtBackend:
    flavour: Flavour
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")

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

    def check(self, precision: str | None, options: BuildOptions) -> None:
        """As `base.Backend.check`.

        Raises:
            UsageError: an option or target that this TensorRT has not.
            BackendError: it is not installed, or needs a GPU for what is asked and there is none.
        """
        for option, reason in self.flavour.refused.items():
            refuse_options(options.tensorrt, (option,), reason)
        module, gpu = load_module(self.flavour), probe_gpu()
        label, tensorrt = self.flavour.label, options.tensorrt
        if isinstance(gpu, NoGpu) and not self.flavour.portable:
            raise BackendError(
                f"{label} builds on a machine with a GPU only: {gpu.reason}; "
                "build there, or take --backend tensorrt-rtx"
            )
        if isinstance(gpu, NoGpu) and (tensorrt.refit or tensorrt.strip_weights):
            raise BackendError(f"{label} needs a GPU to build with --refit or --strip-weights: {gpu.reason}")
        choose_targets(module, self.flavour, gpu if isinstance(gpu, Gpu) else None, options.targets)

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the plan; `realized` holds what the inspector says where the engine can be loaded here, else what the
        builder said that it made.

        Raises:
            BackendError, InputError, UsageError: as `check` and `tensorrt_build.build_plan` do.
        """
        self.check(graph_precision(model), options)
        module, found = load_module(self.flavour), probe_gpu()
        gpu = found if isinstance(found, Gpu) else None
        plan = build_plan(module, self.flavour, gpu, model, options)
        path, stripped = folder / plan_name(self.flavour, options.tensorrt), options.tensorrt.strip_weights
        with nothing_left(folder):
            path.write_bytes(plan.data)
            if stripped and not (folder / GRAPH_NAME).exists():
                ir.save(model, folder / GRAPH_NAME)
            realized = self._realized(path, gpu, plan.layers)
        return Built(
            path.name,
            self.name,
            str(module.__version__),
            _reach(plan.targets, options),
            "" if gpu is None or self.flavour.portable else gpu.label,
            realized,
            (GRAPH_NAME,) if stripped else (),
        )

    def mismatch(self, manifest: Manifest) -> str | None:
        """None also where there is no runtime or GPU at all: loading says that."""
        gpu = probe_gpu()
        if isinstance(gpu, NoGpu):
            return None
        return why_not_here(manifest, self.flavour, str(load_module(self.flavour).__version__), gpu)

    def import_runtime(self) -> None:
        load_module(self.flavour)
        load_cudart(self.flavour.install)

    def load(
        self,
        engine: Path,
        threads: int | None = None,
        *,
        exclusive: bool = False,
        gpu: GpuOptions = GpuOptions(),
        streams: int | None = 1,
    ) -> TensorRtSession:
        """Open an engine on the first GPU. ``threads`` is a CPU's affair and ignored.

        Raises:
            BackendError: no runtime, driver or GPU here, or the engine is not for this one.
            UsageError: a runtime cache for a TensorRT that has none.
        """
        module, found = load_module(self.flavour), probe_gpu()
        if isinstance(found, NoGpu):
            raise BackendError(
                f"{self.flavour.label} cannot run '{engine}' here: {found.reason}; "
                "copy the engine's folder to a machine with an NVIDIA GPU"
            )
        cudart = load_cudart(self.flavour.install)
        return TensorRtSession(module, self.flavour, found, engine, cudart, gpu, streams)

    def _realized(self, path: Path, gpu: Gpu | None, layers: str) -> dict[str, object]:
        """An engine built for another GPU cannot be loaded here: that is no error of the build."""
        built = summarize(read_build_log(layers), "build log")
        if gpu is None:
            return built
        try:
            with self.load(path) as session:
                seen = summarize(read_inspector(session.layers()), "inspector")
                return {**(seen if seen["inspected"] else built), "runs_on": session.runs_on}
        except RirDeployError as error:
            return {**built, "not_loaded": str(error)}


def _reach(targets: tuple[str, ...], options: BuildOptions) -> tuple[str, ...]:
    """The GPUs that an engine runs on."""
    return ("sm80+",) if options.tensorrt.hardware == "ampere-plus" else targets


def _why_not(module: TensorRt, flavour: Flavour, gpu: Gpu | NoGpu) -> str:
    """Why engines do not run here; "" where they do."""
    if isinstance(gpu, NoGpu):
        return gpu.reason
    try:
        load_cudart(flavour.install)
    except BackendError as error:
        return str(error)
    known = known_targets(module) if flavour.portable else ()
    if known and gpu.target not in known and _number(gpu.target) < _number(known[-1]):
        return f"{flavour.label} has no kernels for {gpu.label} (it knows {', '.join(known)} and later)"
    return ""


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))


BACKEND = TensorRtBackend(TENSORRT)
