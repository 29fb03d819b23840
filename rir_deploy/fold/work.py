"""What a graph costs: convolutions, nodes, multiply-adds, parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from rir_deploy.fold.constants import EvaluateConstants
from rir_deploy.fold.shapes import InferShapes

# What a dynamic batch, height or width is taken to be where multiply-adds are counted.
ASSUMED_BATCH, ASSUMED_SIZE = 1, 64
_LAYER_OPS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Work:
    """Counts for one image. ``macs`` are multiply-adds of Conv, Gemm and MatMul; ``params`` the elements of weights.

    A node whose shapes cannot be found counts no multiply-adds.
    """

    convs: int
    nodes: int
    macs: int
    params: int
    weight_bytes: int
    ops: dict[str, int]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_work(model: ir.Model) -> Work:
    """Count what a model costs, functions and all. It is not changed; dynamic sizes are taken as `ASSUMED_SIZE`."""
    if model.functions:
        model = InlinePass()(model.clone()).model
    floats = [
        tensor for tensor in _weights(model.graph) if tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8
    ]
    ops = Counter(node.op_type for node in model.graph)
    return Work(
        convs=ops["Conv"],
        nodes=sum(ops.values()),
        macs=sum(macs for _, macs in layer_macs(model)),
        params=sum(tensor.size for tensor in floats),
        weight_bytes=sum(tensor.nbytes for tensor in floats),
        ops=dict(sorted(ops.items())),
    )


def _weights(graph: ir.Graph) -> list[ir.TensorProtocol]:
    stored = [value.const_value for value in graph.initializers.values()]
    constants = [
        node.attributes["value"].as_tensor()
        for node in graph
        if node.op_type == "Constant" and "value" in node.attributes
    ]
    return [tensor for tensor in (*stored, *constants) if tensor is not None]


def layer_macs(model: ir.Model) -> list[tuple[ir.Node, int]]:
    """The nodes that multiply and add, each with its multiply-adds for one image, 0 where it cannot be told.

    They are nodes of a copy where the model itself does not say their shapes.
    """
    batches = _batch_names(model.graph)
    counts = [(node, _macs(node, batches)) for node in _multiplying(model)]
    if any(macs is None for _, macs in counts):
        # Shapes are not all there, or depend on sizes that are not known: infer them at the assumed sizes.
        counts = [(node, _macs(node, batches)) for node in _multiplying(_at_assumed_sizes(model))]
    return [(node, macs or 0) for node, macs in counts]


def _multiplying(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in _LAYER_OPS]


def _at_assumed_sizes(model: ir.Model) -> ir.Model:
    sized = model.clone()
    for value in sized.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_assumed(size, axis) for axis, size in enumerate(value.shape)])
    for node in sized.graph:
        for output in node.outputs:
            output.shape = None
    for value in sized.graph.outputs:
        value.shape = None
    # Exporters compute pad amounts and shapes with nodes; inference sees through them only once they are weights, and
    # those computed from an inferred shape become weights in the round after.
    modified = True
    while modified:
        InferShapes()(EvaluateConstants()(sized).model)
        modified = EvaluateConstants(from_shapes=True)(sized).modified
    return sized


def _assumed(size: object, axis: int) -> int:
    if isinstance(size, int):
        return size
    return ASSUMED_BATCH if axis == 0 else ASSUMED_SIZE


def _macs(node: ir.Node, batches: frozenset[str]) -> int | None:
    """Multiply-adds of a layer, None where its shapes do not say."""
    weight, output = _sizes(node.inputs[1]), _sizes(node.outputs[0], batches)
    if weight is None or output is None:
        return None
    # Every weight is used once for every place of the result: spatial places of a Conv, leading ones of a MatMul.
    places = [output[0], *output[2:]] if node.op_type == "Conv" else output[:-1]
    return prod(weight) * prod(places)


def _batch_names(graph: ir.Graph) -> frozenset[str]:
    firsts = [value.shape[0] for value in graph.inputs if value.shape is not None and len(value.shape) > 0]
    return frozenset(size.value for size in firsts if isinstance(size, ir.SymbolicDim) and size.value is not None)


def _sizes(value: ir.Value | None, batches: frozenset[str] = frozenset()) -> list[int] | None:
    if value is None or value.shape is None:
        return None
    sizes = list(value.shape)
    if sizes and isinstance(sizes[0], ir.SymbolicDim) and sizes[0].value in batches:
        sizes[0] = ASSUMED_BATCH
    known = [size for size in sizes if isinstance(size, int)]
    return known if len(known) == len(sizes) else None
