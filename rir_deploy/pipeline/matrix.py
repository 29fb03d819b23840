"""Which graphs and engines a run makes: precisions crossed with the backends that are there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.tensorrt_gpu import NoGpu, probe_gpu
from rir_deploy.errors import BackendError
from rir_deploy.pipeline.lower import FLAVOURS, Precision
from rir_deploy.pipeline.plan import Plan
from rir_deploy.quantize.options import Flavour

CPU_BACKENDS = frozenset({"onnxruntime", "openvino"})


@dataclass(frozen=True)
class GraphSpec:
    """A graph of a run; ``flavour`` is of INT8, and what is not ``folded`` is the network as it was traced."""

    precision: Precision
    flavour: Flavour | None = None
    folded: bool = True

    @property
    def name(self) -> str:
        parts = (self.precision, self.flavour, None if self.folded else "unfolded")
        return "-".join(part for part in parts if part)

    @property
    def file(self) -> str:
        """Its place in the run folder."""
        return f"graphs/{self.name}.onnx"


@dataclass(frozen=True)
class EngineSpec:
    """One engine of a run: the graph it is built from decides its precision."""

    backend: str
    graph: GraphSpec

    @property
    def name(self) -> str:
        return f"{self.backend}-{self.graph.precision}{'' if self.graph.folded else '-unfolded'}"


def usable_backends(plan: Plan) -> tuple[str, ...]:
    """The backends to build for: those of the plan, or all that can build here.

    Raises:
        BackendError: one named in the plan cannot build here, or none can.
    """
    found = {name: get_backend(name).availability() for name in plan.backends or BACKENDS}
    missing = [one for one in found.values() if not one.can_build]
    if plan.backends is not None and missing:
        raise BackendError(f"the backend '{missing[0].backend}' is not there: {missing[0].reason}")
    usable = tuple(name for name, one in found.items() if one.can_build)
    if not usable:
        raise BackendError("no backend is installed; run doctor to see what is missing")
    return usable


def graphs_of(plan: Plan, backends: tuple[str, ...]) -> Iterator[GraphSpec]:
    """One a precision; INT8 once for each flavour that a backend needs."""
    for precision in plan.precisions:
        if precision != "int8":
            yield GraphSpec(precision)
            continue
        able = [backend for backend in backends if precision in get_backend(backend).precisions]
        for flavour in dict.fromkeys(FLAVOURS[backend] for backend in able):
            yield GraphSpec("int8", flavour)


def engines_of(plan: Plan, backends: tuple[str, ...]) -> Iterator[EngineSpec]:
    """Every precision on every backend that computes in it."""
    for backend in backends:
        for precision in (one for one in plan.precisions if one in get_backend(backend).precisions):
            flavour = FLAVOURS[backend] if precision == "int8" else None
            yield EngineSpec(backend, GraphSpec(precision, flavour))


def unfolded(spec: GraphSpec) -> GraphSpec:
    """The same of the network as it was traced."""
    return replace(spec, folded=False)


def targets_of(plan: Plan, backend: str) -> tuple[str, ...]:
    """The compute capabilities to build for: only TensorRT-RTX builds for GPUs that are not there."""
    return plan.targets if backend == "tensorrt-rtx" else ()


def rebuild_command(spec: EngineSpec, plan: Plan, output: str) -> str:
    """What builds an engine again, from inside the run folder."""
    batch, targets = plan.batch, targets_of(plan, spec.backend)
    words = ["rir-deploy", "build-engine", spec.graph.file, "--backend", spec.backend, "--no-fold"]
    words += ["--batch", f"{batch.min},{batch.opt},{batch.max}"]
    words += ["--target", ",".join(targets)] if targets else []
    return shlex.join([*words, "-o", output, "--force"])


def reason_of(spec: EngineSpec, missing: str | None) -> str:
    """What a reader has to know of an engine's row."""
    if missing is not None:
        return f"no GPU ({missing})" if isinstance(probe_gpu(), NoGpu) else missing
    if spec.graph.precision == "fp16" and spec.backend in CPU_BACKENDS:
        return "the CPU stores FP16 and computes in FP32: no proof of FP16 arithmetic"
    return ""
