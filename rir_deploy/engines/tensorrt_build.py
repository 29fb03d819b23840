"""An ONNX graph to a TensorRT plan, by one path for TensorRT 10.3 and later, 11 and RTX.

Precision is in the graph: the network is strongly typed everywhere, and no precision flag of the builder is touched but
one. TF32 is switched off, which is on by default and would compute an FP32 graph with 10-bit mantissas.
What differs between versions is asked of the module ("hasattr"), never read off its version number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from rir_deploy.engines.base import BatchRange, BuildOptions, Progress, TensorSpec, input_spec, model_bytes
from rir_deploy.engines.tensorrt_flavour import Flavour, clean, last_error, logger_of
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.errors import BackendError, InputError, UsageError, unknown_name
from rir_deploy.tensorrt_rules import check_tensorrt_graph


@dataclass(frozen=True)
class Plan:
    """A serialised engine. ``targets`` is empty where RTX chose its default: 8.6 and later, without Turing and SM80."""

    data: bytes
    targets: tuple[str, ...]


def build_plan(module: Any, flavour: Flavour, gpu: Gpu | None, model: ir.Model, options: BuildOptions) -> Plan:
    """Parse and build. ``gpu`` is the one of this machine, which a flavour that is not portable needs.

    Raises:
        InputError: the graph is one that TensorRT misreads or does not take.
        UsageError: unknown target, or one that this flavour cannot build for.
        BackendError: the build failed for want of memory or by the driver.
    """
    spec = input_spec(model)
    check_tensorrt_graph(model)
    targets = choose_targets(module, flavour, gpu, options.targets)
    logger = logger_of(module)
    logger.errors.clear()
    builder = module.Builder(logger)
    network = builder.create_network(creation_flags(module))
    parser = module.OnnxParser(network, logger)  # lives to the end: it owns the weights of the network
    _parse(parser, module, flavour, model)
    config = builder.create_builder_config()
    _configure(module, config)
    if flavour.portable:
        _set_targets(module, flavour, config, targets)
    _add_profile(builder, config, spec, options.batch)
    monitor = _watch(module, config, options.on_progress)
    data = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped is not None:
        raise monitor.stopped
    if data is None:
        raise _build_error(flavour, last_error(logger))
    return Plan(bytes(memoryview(data)), targets)


def creation_flags(module: Any) -> int:
    """Strongly typed, by name: the flag's number moved, 10.x is weak without it, and later versions may drop it."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def known_targets(module: Any) -> tuple[str, ...]:
    """The compute capabilities that a module builds for: ("sm75", "sm80", ...); () where it offers no choice."""
    members = getattr(getattr(module, "ComputeCapability", None), "__members__", {})
    numbers = sorted(int(match[1]) for name in members if (match := re.fullmatch(r"SM(\d+)", name)))
    return tuple(f"sm{number}" for number in numbers)


def choose_targets(module: Any, flavour: Flavour, gpu: Gpu | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The targets as a builder takes them: lower case, each once, in ascending order."""
    names = tuple(sorted({name.lower() for name in wanted}, key=lambda name: (len(name), name)))
    if not flavour.portable:
        here = () if gpu is None else (gpu.target,)
        if names and names != here:
            raise UsageError(
                f"{flavour.label} builds only for the GPU of this machine ({''.join(here) or 'none'}), not for "
                f"{', '.join(names)}; build on the target, or take --backend tensorrt-rtx"
            )
        return here
    known = known_targets(module)
    for name in names:
        if name not in known:
            raise unknown_name(f"{flavour.label} target", name, known, suggest=False)
    return names


def _set_targets(module: Any, flavour: Flavour, config: Any, targets: tuple[str, ...]) -> None:
    if not targets:
        return
    if not hasattr(config, "set_compute_capability"):
        raise UsageError(f"{flavour.label} {module.__version__} does not build for named targets: leave --target out")
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        # It answers False instead of raising, and the build then quietly takes another target.
        if not config.set_compute_capability(getattr(module.ComputeCapability, name.upper()), index):
            raise UsageError(f"{flavour.label} {module.__version__} refuses the target {name}; leave it out")


def _parse(parser: Any, module: Any, flavour: Flavour, model: ir.Model) -> None:
    if parser.parse(model_bytes(model)):
        return
    label = f"{flavour.label} {module.__version__}"
    if not parser.num_errors:
        raise InputError(f"{label} does not take the model and gives no reason; check it with the inspect command")
    error = parser.get_error(0)
    where = _parse_place(error, list(model.graph))
    raise InputError(f"{label} does not take {where}: {_parse_reason(error)}; change it or export with another opset")


def _parse_place(error: Any, nodes: list[ir.Node]) -> str:
    """The node by its name, or where it has none by the name of its output."""
    index = int(error.node())
    if not 0 <= index < len(nodes):
        return "the model"
    name = error.node_name() or nodes[index].outputs[0].name
    return f"the node '{name}' ({error.node_operator() or nodes[index].op_type})"


def _parse_reason(error: Any) -> str:
    """The parser's own words, without the C++ of its assertions; its error code where it says no more than "false"."""
    text = clean(str(error.desc()).replace("Assertion failed: ", "")).strip('"')
    text = re.sub(r'^.*? && "', "", text)
    text = re.sub(r"^\S.*?\): (?=[A-Z])", "", text)
    if text.lower() in ("", "false", "true"):
        code = getattr(error.code(), "name", str(error.code()))
        return str(code).lower().replace("_", " ")
    return text


def _configure(module: Any, config: Any) -> None:
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or the inspector knows no precisions
    if hasattr(module.BuilderFlag, "TF32"):
        config.clear_flag(module.BuilderFlag.TF32)


def _add_profile(builder: Any, config: Any, spec: TensorSpec, batch: BatchRange) -> None:
    """One optimisation profile from the smallest to the largest batch; none for a model of one fixed batch size."""
    if any(size is None for size in spec.shape[1:]):
        raise InputError(f"the input '{spec.name}' has a dynamic image size; export the model with a fixed one")
    if spec.shape[0] is not None:
        if not batch.min <= spec.shape[0] <= batch.max:
            raise InputError(
                f"the model takes batches of {spec.shape[0]} only, outside of {batch.min} to {batch.max}; "
                "export it with a dynamic batch or change --batch"
            )
        return
    profile = builder.create_optimization_profile()
    low, opt, high = ((size, *spec.shape[1:]) for size in (batch.min, batch.opt, batch.max))
    profile.set_shape(spec.name, low, opt, high)
    config.add_optimization_profile(profile)


def _watch(module: Any, config: Any, on_progress: Progress | None) -> Any:
    """Let the builder report to ``on_progress``; the monitor, which has to outlive the build, or None."""
    if on_progress is None or not hasattr(config, "progress_monitor"):
        return None
    monitor = _monitor(module, on_progress)
    config.progress_monitor = monitor
    return monitor


def _monitor(module: Any, on_progress: Progress) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # its type is known at run time only
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.totals: dict[str, int] = {}
            self.stopped: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.totals[phase] = steps
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return self.stopped is None

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self.totals.get(phase, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if self.stopped is None:
                    on_progress(phase, done, self.totals.get(phase, done))
            except BaseException as error:  # Ctrl-C too: it may not cross the C++ frames, so it is raised after them
                self.stopped = error

    return Monitor()


def _build_error(flavour: Flavour, reason: str) -> InputError | BackendError:
    if any(word in reason.lower() for word in ("cuda", "memory", "driver")):
        return BackendError(f"{flavour.label} could not build the engine here: {reason}; free GPU memory or try again")
    return InputError(
        f"{flavour.label} cannot build this graph: {reason}; change the graph, its precision or the target"
    )
