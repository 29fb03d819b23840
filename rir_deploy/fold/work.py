"""What a graph costs: convolutions, nodes, multiply-adds, parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rir_deploy.fold.constants import EvaluateConstants

# What a dynamic batch, height or width is taken to be where multiply-adds are counted.
ASSUMED_BATCH, ASSUMED_SIZE = 1, 64


@dataclass(frozen=True)
class Work:
    """Counts for one image. ``macs`` are multiply-adds of Conv, Gemm and MatMul; ``params`` the elements of weights."""

    convs: int
    nodes: int
    macs: int
    params: int
    weight_bytes: int
    ops: dict[str, int]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_work(model: ir.Model) -> Work:
    """Count what a model costs. The model is not changed; dynamic sizes are taken as `ASSUMED_SIZE`."""
    sized = model.clone()
    for value in sized.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_assumed(size, axis) for axis, size in enumerate(value.shape)])
    for node in sized.graph:
        for output in node.outputs:
            output.shape = None
    for value in sized.graph.outputs:
        value.shape = None
    ops = Counter(node.op_type for node in sized.graph)
    # Exporters compute pad amounts and shapes with nodes; inference sees through them only once they are weights.
    sized = ShapeInferencePass()(EvaluateConstants()(sized).model).model
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    floats = [tensor for tensor in weights if tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8]
    return Work(
        convs=ops["Conv"],
        nodes=sum(ops.values()),
        macs=sum(_macs(node) for node in sized.graph),
        params=sum(tensor.size for tensor in floats),
        weight_bytes=sum(tensor.nbytes for tensor in floats),
        ops=dict(sorted(ops.items())),
    )


def _assumed(size: object, axis: int) -> int:
    if isinstance(size, int):
        return size
    return ASSUMED_BATCH if axis == 0 else ASSUMED_SIZE


def _macs(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    weight, output = _sizes(node.inputs[1]), _sizes(node.outputs[0])
    if weight is None or output is None:
        return 0
    # Every weight is used once for every place of the result: spatial places of a Conv, leading ones of a MatMul.
    places = [output[0], *output[2:]] if node.op_type == "Conv" else output[:-1]
    return prod(weight) * prod(places)


def _sizes(value: ir.Value | None) -> list[int] | None:
    if value is None or value.shape is None:
        return None
    sizes = [size for size in value.shape if isinstance(size, int)]
    return sizes if len(sizes) == len(value.shape) else None
