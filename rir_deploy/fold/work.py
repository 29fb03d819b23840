"""What a graph costs: convolutions, nodes, multiply-adds, parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rir_deploy.fold.constants import Constants

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
    sized = ShapeInferencePass()(sized).model
    constants = Constants(sized.graph.opset_imports.get("", 0))
    ops = Counter(node.op_type for node in sized.graph)
    weights = [value.const_value for value in sized.graph.initializers.values() if value.const_value is not None]
    floats = [tensor for tensor in weights if tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8]
    return Work(
        convs=ops["Conv"],
        nodes=sum(ops.values()),
        macs=sum(_macs(node, constants) for node in sized.graph),
        params=sum(tensor.size for tensor in floats),
        weight_bytes=sum(tensor.nbytes for tensor in floats),
        ops=dict(sorted(ops.items())),
    )


def _assumed(size: object, axis: int) -> int:
    if isinstance(size, int):
        return size
    return ASSUMED_BATCH if axis == 0 else ASSUMED_SIZE


def _macs(node: ir.Node, constants: Constants) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    weight, output = node.inputs[1], node.outputs[0]
    if weight is None or weight.shape is None or output.shape is None:
        return 0
    sizes = [size for size in [*weight.shape, *output.shape] if isinstance(size, int)]
    if len(sizes) < len(weight.shape) + len(output.shape):
        return 0
    elements = prod(int(size) for size in weight.shape)
    if node.op_type == "Conv":
        return elements * prod(int(size) for size in output.shape[2:]) * int(output.shape[0])
    return elements * prod(int(size) for size in output.shape[:-1])
