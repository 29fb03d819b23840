"""What a graph costs: convolutions, nodes, multiply-adds, parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from rir_deploy.errors import InputError
from rir_deploy.fold.constants import EvaluateConstants
from rir_deploy.fold.shapes import InferShapes
from rir_deploy.graph.domains import use_short_domain

# What a dynamic batch, height or width is taken to be where multiply-adds are counted.
ASSUMED_BATCH, ASSUMED_SIZE = 1, 64
# Tried in this order: what a model reads may be too small for its windows.
_ASSUMED_SIZES = (ASSUMED_SIZE, 512, 4096)
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
    """Count what a model costs, functions and all. It is not changed; dynamic sizes are taken as `ASSUMED_SIZE`, or
    as a larger number where the model cannot run at that one."""
    return measure_work_at(model)[0]


def measure_work_at(model: ir.Model, size: int | None = None) -> tuple[Work, int]:
    """`measure_work`, and what dynamic sizes were taken to be: two models are compared at the same ``size``."""
    if model.functions:
        model = InlinePass()(model.clone()).model
    weights = [tensor for tensor in _tensors(model.graph) if _is_weight(tensor)]
    ops = Counter(node.op_type for node in model.graph)
    layers, size = _layer_macs_at(model, _ASSUMED_SIZES if size is None else (size,))
    work = Work(
        convs=ops["Conv"],
        nodes=sum(ops.values()),
        macs=sum(macs for _, macs in layers),
        params=sum(tensor.size for tensor in weights),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        ops=dict(sorted(ops.items())),
    )
    return work, size


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    dtype = tensor.dtype
    return dtype != ir.DataType.STRING and (dtype.is_floating_point() or dtype.bitwidth <= 8)


def _tensors(graph: ir.Graph) -> list[ir.TensorProtocol]:
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
    return _layer_macs_at(model, _ASSUMED_SIZES)[0]


def _layer_macs_at(model: ir.Model, sizes: Sequence[int]) -> tuple[list[tuple[ir.Node, int]], int]:
    """`layer_macs` at the first of the sizes that the model can have, and that size."""
    batches, chosen = _batch_names(model.graph), sizes[0]
    counts = [(node, _macs(node, batches)) for node in _multiplying(model)]
    if any(macs is None for _, macs in counts):
        # Shapes are not all there, or depend on sizes that are not known: infer them at the assumed sizes.
        found = ((_at_assumed_size(model, size), size) for size in sizes)
        sized, chosen = next(((m, size) for m, size in found if m is not None), (model, chosen))
        counts = [(node, _macs(node, batches)) for node in _multiplying(sized)]
    return [(node, macs or 0) for node, macs in counts], chosen


def _multiplying(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in _LAYER_OPS]


def _at_assumed_size(model: ir.Model, assumed: int) -> ir.Model | None:
    """A copy with all shapes inferred at that size; None where a window of the model does not fit into it."""
    sized = model.clone()
    use_short_domain(sized)
    is_fixed = True
    for value in sized.graph.inputs:
        if value.shape is not None:
            sizes = [_assumed(size, axis, assumed) for axis, size in enumerate(value.shape)]
            is_fixed &= sizes == list(value.shape)
            value.shape = ir.Shape(sizes)
    for node in sized.graph:
        for output in node.outputs:
            output.shape = None
    for value in sized.graph.outputs:
        value.shape = None
    # Exporters compute pad amounts and shapes with nodes; inference sees through them only once they are weights, and
    # those computed from an inferred shape become weights in the round after.
    modified = True
    while modified:
        try:
            InferShapes()(EvaluateConstants()(sized).model)
        except InputError:  # a size below zero, which is not the file's fault where a size was assumed
            if is_fixed:
                raise
            return None
        modified = EvaluateConstants(from_shapes=True)(sized).modified
    shapes = [_sizes(node.outputs[0]) for node in _multiplying(sized)]
    return None if any(min(shape, default=1) < 1 for shape in shapes if shape is not None) else sized


def _assumed(size: object, axis: int, assumed: int) -> int:
    if isinstance(size, int) and size >= 0:
        return size
    return ASSUMED_BATCH if axis == 0 else assumed


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
    known = [size for size in sizes if isinstance(size, int) and size >= 0]  # some exporters write -1
    return known if len(known) == len(sizes) else None
