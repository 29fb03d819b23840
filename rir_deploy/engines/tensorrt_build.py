"""An ONNX graph to a TensorRT plan, by one path for TensorRT 10.3 and later, 11 and RTX.

Precision is in the graph: the network is strongly typed everywhere. What differs between versions is asked of the
module ("hasattr"), never read off its version number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from rir_deploy.engines.base import BuildOptions, input_spec
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_config import add_profile, configure, write_timing_cache
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_log import logger_of
from rir_deploy.engines.tensorrt_parse import parse_model
from rir_deploy.engines.tensorrt_progress import make_monitor
from rir_deploy.engines.tensorrt_targets import choose_targets, set_targets
from rir_deploy.errors import BackendError, InputError
from rir_deploy.tensorrt_rules import check_tensorrt_graph

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class Plan:
    """A serialised engine.

    ``targets`` is empty where RTX chose its default: 8.0 and later, without Turing. ``layers`` is the builder's own
    list of what it made, "" where it gave none.
    """

    data: bytes
    targets: tuple[str, ...]
    layers: str


def build_plan(module: TensorRt, flavour: Flavour, gpu: Gpu | None, model: ir.Model, options: BuildOptions) -> Plan:
    """Parse and build. ``gpu`` is the one of this machine, which a flavour that is not portable needs.

    Raises:
        InputError: the graph is one that TensorRT misreads or does not take.
        UsageError: unknown target, or an option that this flavour or version lacks.
        BackendError: the build failed for want of memory or by the driver.
    """
    spec, label = input_spec(model), f"{flavour.label} {module.__version__}"
    check_tensorrt_graph(model)
    targets = choose_targets(module, flavour, gpu, options.targets)
    logger = logger_of(module)
    logger.heard.forget()
    builder = module.Builder(logger)
    network = builder.create_network(creation_flags(module))
    parser = module.OnnxParser(network, logger)  # lives to the end: it owns the weights of the network
    parse_model(parser, model, label)
    config = builder.create_builder_config()
    configure(module, config, options.tensorrt, label)
    set_targets(module, flavour, config, targets)
    add_profile(builder, config, spec, options.batch)
    monitor = None if options.on_progress is None else make_monitor(module, options.on_progress)
    if monitor is not None:
        config.progress_monitor = monitor
    data: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.stopped is not None:
        raise monitor.stopped
    if data is None:
        raise _build_error(flavour, options, logger.heard.last_error())
    if options.tensorrt.timing_cache is not None:
        write_timing_cache(config, options.tensorrt.timing_cache)
    return Plan(bytes(memoryview(data)), targets, logger.heard.layers)


def creation_flags(module: TensorRt) -> int:
    """Strongly typed, by name: the flag's number moved, 10.x is weak without it, and later versions may drop it."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _build_error(flavour: Flavour, options: BuildOptions, reason: str) -> InputError | BackendError:
    text = reason.lower()
    if "workspace" in text and options.tensorrt.workspace_mib is not None:
        return InputError(
            f"{flavour.label} finds no kernel within a workspace of {options.tensorrt.workspace_mib} MiB ({reason}); "
            "give more with --workspace"
        )
    if any(word in text for word in ("cuda", "memory", "driver")):
        return BackendError(f"{flavour.label} could not build the engine here: {reason}; free GPU memory or try again")
    return InputError(
        f"{flavour.label} cannot build this graph: {reason}; change the graph, its precision or the target"
    )
