"""What a runtime makes of a graph: it may compute in another precision and say nothing."""

from __future__ import annotations

import onnx_ir as ir

from rir_deploy.engines.base import Built
from rir_deploy.errors import BackendError

_INTEGERS = frozenset({"u8", "i8"})
_UNKNOWN = "unknown"
_ON_THE_WAY = frozenset({"Relu", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Cast"})


def check_realized(precision: str, built: Built, model: ir.Model | None = None) -> str | None:
    """Where a runtime tells what it does, hold it to the graph.

    CPUs are held to INT8 alone: that they store FP16 and compute in FP32 is known of them, and said.

    Args:
        model: what was built, whose convolutions between Q/DQ pairs should run on integers.

    Returns:
        What to warn of where some of them do not, or where the runtime does not tell.

    Raises:
        BackendError: none of the convolutions of an INT8 or FP16 graph is computed in that, or in INT8 fewer than are
            computed in float against the graph; or it does not tell, of an INT8 engine that is for Turing too.
    """
    wanted = {"int8": _INTEGERS, "fp16": frozenset({"f16"})}.get(precision)
    if wanted is None or (precision == "fp16" and not built.backend.startswith("tensorrt")):
        return None
    if model is not None and not any(node.op_type == "Conv" for node in model.graph):
        return None
    told = built.realized.get("conv")
    told = told if isinstance(told, dict) else {}
    kinds = {kind: count for kind, count in told.items() if kind != _UNKNOWN}
    found, total = sum(kinds.get(kind, 0) for kind in wanted), sum(kinds.values())
    if not kinds or (found == 0 and told.get(_UNKNOWN)):
        return _unread(precision, built)
    counts = ", ".join(f"{count} in {kind}" for kind, count in kinds.items())
    kind = "in integers" if precision == "int8" else "in FP16"
    if found == 0:
        raise BackendError(
            f"{built.backend} computes no convolution of the {precision} graph {kind} here ({counts}); "
            f"{_way_out(built)}"
        )
    # Not the number of those quantised less those found: a builder may make one convolution of two.
    lost = total - found - _float_convs(model) if model is not None and precision == "int8" else 0
    if lost <= 0:
        return None
    said = f"{built.backend} computes {lost} of {total} convolutions in float that are INT8 in the graph ({counts})"
    if lost > found:
        raise BackendError(f"{said}; {_way_out(built)}")
    return said


def _unread(precision: str, built: Built) -> str:
    said = f"what {built.backend} computes the convolutions of the {precision} graph in could not be read"
    if precision == "int8" and "sm75" in built.targets:
        raise BackendError(f"{said}, and for Turing it is float; {_way_out(built)}")
    return f"{said}: compare its speed with FP32's"


def _float_convs(model: ir.Model) -> int:
    """Convolutions that are not quantised, or that on CPUs are float ones since their result leaves (`placement`)."""
    convs = [node for node in model.graph if node.op_type == "Conv"]
    return sum(not _is_quantized(node) or _leaves(node.outputs[0]) for node in convs)


def _is_quantized(node: ir.Node) -> bool:
    """Between integers on both sides: one that is kept may read a pair, but its weight is a float one."""
    producers = [None if value is None else value.producer() for value in node.inputs[:2]]
    return all(producer is not None and producer.op_type == "DequantizeLinear" for producer in producers)


def _leaves(value: ir.Value) -> bool:
    """Whether nothing that computes on is between a tensor and an output of the graph."""
    if value.is_graph_output():
        return True
    uses = value.uses()
    return bool(uses) and all(use.node.op_type in _ON_THE_WAY and _leaves(use.node.outputs[0]) for use in uses)


def _way_out(built: Built) -> str:
    """With Turing among the targets, TensorRT-RTX makes the engine float for all of them (seen with 1.7.1)."""
    if "sm75" in built.targets:
        return "build for sm75 on its own, in FP16"
    if built.backend == "onnxruntime":
        return "quantize the FP32 model with --qdq cpu"
    return "build for another backend, or in FP32"
