"""Float arithmetic that needs the digits of FP32: sizes, indices, counts.

FP16 holds every integer up to 2,048 and none over 65,504. So these keep FP32, whatever the rest is cast to:

1. A pointwise node on numbers that come from wide integers: sizes cast to float, positions, a count that a sum is
   divided by. What is computed from such numbers alone comes from integers too; where they meet a feature map, only
   that node keeps FP32, and a layer that reads them is a layer like any other. Pixels of 8 bits are no such numbers.
2. A node on the way to a size, an index or a coordinate: what becomes an integer, the scales of a Resize, the grid of a
   GridSample; what reads coordinates keeps FP32 as well.
3. A sum, mean or normalisation over more elements than FP16 counts, or over a dynamic number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

# FP16 counts in ones up to here.
COUNTS = 2048
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_WIDE = frozenset(
    {ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT32, ir.DataType.UINT32, ir.DataType.INT64}
    | {ir.DataType.UINT64}
)
# The inputs that are sizes though they are floats, and those that are coordinates.
_FLOAT_SIZES = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2)}
_COORDINATES = {
    "GridSample": (1,),
    "RoiAlign": (1,),
    "MaxRoiPool": (1,),
    "NonMaxSuppression": (0, 1),
    "AffineGrid": (0,),
}
# What shape arithmetic is made of: it ends where another operator gives its numbers.
_ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Neg", "Abs", "Sign", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round"}
    | {"Min", "Max", "Clip", "Sum", "Where", "Cast", "Identity", "Concat", "Slice", "Split", "Gather", "Squeeze"}
    | {"Unsqueeze", "Reshape", "Flatten", "Expand", "Tile", "Transpose", "ReduceProd", "ReduceMax", "ReduceMin"}
)
_REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}
)
# These add up over height and width, or all that is behind the channels.
_SPATIAL = frozenset({"GlobalAveragePool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization"})
# These add up along one axis, or from an axis on, with what it is where none is given.
_ALONG = {"CumSum": 0, "LpNormalization": -1, "LayerNormalization": -1, "RMSNormalization": -1}
# These read a feature map whatever it holds: to them an image of 16-bit integers is an image.
_LAYERS = _SPATIAL | frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "AveragePool", "MaxPool", "LpPool", "GlobalMaxPool"}
    | {"BatchNormalization", "LayerNormalization", "RMSNormalization", "LpNormalization", "LRN", "Softmax"}
    | {"MeanVarianceNormalization"}
)
_FROM_INTEGERS = "it computes on sizes, positions or counts, which FP16 does not hold exactly"
_TO_INTEGERS = "it computes sizes or indices, which FP16 does not hold exactly"


def exact_nodes(graph: ir.Graph) -> dict[ir.Node, str]:
    """The nodes that keep FP32, each with the reason. Types and shapes have been inferred."""
    reasons = {node: reason for node in graph if (reason := _adds_up(node)) is not None}
    for node in _towards_integers(graph):
        reasons[node] = _TO_INTEGERS
    reasons.update(dict.fromkeys(_on_integers(graph), _FROM_INTEGERS))
    return reasons


def _on_integers(graph: ir.Graph) -> Iterator[ir.Node]:
    counts: set[ir.Value] = set()
    for node in graph:
        operands = [value for value in node.inputs if value is not None and value.const_value is None]
        is_count = _makes_count(node)
        if is_count or (node.op_type not in _LAYERS and any(value in counts for value in operands)):
            yield node
            if is_count or all(value in counts or value.dtype not in _FLOATS for value in operands):
                counts.update(value for value in node.outputs if value.dtype in _FLOATS)


def _makes_count(node: ir.Node) -> bool:
    """Whether the node turns wide integers into floats, or counts in floats."""
    if node.op_type in ("Range", "CumSum"):
        return node.outputs[0].dtype in _FLOATS
    source = node.inputs[0] if node.op_type in ("Cast", "CastLike") else None
    return source is not None and source.dtype in _WIDE and node.outputs[0].dtype in _FLOATS


def _towards_integers(graph: ir.Graph) -> set[ir.Node]:
    found = {node for node in graph if node.op_type in _COORDINATES}
    waiting = [value for node in graph for value in _sizes_read(node)]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None or node in found or node.op_type not in _ARITHMETIC or value.dtype not in _FLOATS:
            continue
        found.add(node)
        waiting.extend(operand for operand in node.inputs if operand is not None)
    return found


def _sizes_read(node: ir.Node) -> Iterator[ir.Value]:
    if node.op_type == "Cast" and node.outputs[0].dtype in _WIDE and node.inputs[0] is not None:
        yield node.inputs[0]
    for index in (*_FLOAT_SIZES.get(node.op_type, ()), *_COORDINATES.get(node.op_type, ())):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None:
            yield value


def _adds_up(node: ir.Node) -> str | None:
    """Why the node adds up more numbers than FP16 counts."""
    value = node.inputs[0] if node.inputs else None
    if value is None or value.dtype not in _FLOATS:
        return None
    sizes = _summed_sizes(node, value)
    if sizes is None:
        return None
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        return "it adds up a dynamic number of elements, which may be more than FP16 counts"
    return f"it adds up {prod(known):,} elements, more than FP16 counts" if prod(known) > COUNTS else None


def _summed_sizes(node: ir.Node, value: ir.Value) -> list[object] | None:
    """Sizes of the axes that a node adds up over; [None] where they are not known, None where it adds up nothing."""
    op = node.op_type
    if op in ("AveragePool", "LpPool"):
        return list(node.attributes.get_ints("kernel_shape", ()))
    if op == "Einsum":
        return _contracted(node)
    if op not in _REDUCTIONS | _SPATIAL | _ALONG.keys() and op != "MeanVarianceNormalization":
        return None
    if value.shape is None:
        return [None]
    axes = _summed_axes(node, len(value.shape))
    return [None] if axes is None else [value.shape[axis] for axis in axes]


def _summed_axes(node: ir.Node, rank: int) -> list[int] | None:
    op = node.op_type
    if op in _SPATIAL:
        return list(range(2, rank))
    if op == "MeanVarianceNormalization":
        return [axis % rank for axis in node.attributes.get_ints("axes", (0, 2, 3))]
    if op in _REDUCTIONS:
        return _axes(node, rank)
    if op == "CumSum":
        given = node.inputs[1].const_value if node.inputs[1] is not None else None
        return None if given is None else [int(given.numpy().reshape(-1)[0]) % rank]
    first = node.attributes.get_int("axis", _ALONG[op]) % rank
    return [first] if op == "LpNormalization" else list(range(first, rank))


def _contracted(node: ir.Node) -> list[object]:
    """The sizes of the letters of an Einsum that its result lacks."""
    terms, arrow, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return [None]
    sizes: dict[str, object] = {}
    for letters, operand in zip(terms.split(","), node.inputs, strict=False):
        shape = list(operand.shape) if operand is not None and operand.shape is not None else [None] * len(letters)
        sizes.update(zip(letters, shape, strict=False))
    return [size for letter, size in sizes.items() if letter not in result]


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    """Of a reduction: an attribute at first, an input since opset 13 or 18; None where it is not known."""
    axes = list(node.attributes.get_ints("axes", ()))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        if given.const_value is None:
            return None
        axes = [int(axis) for axis in given.const_value.numpy().reshape(-1)]
    if not axes and node.attributes.get_int("noop_with_empty_axes"):
        return []
    return [axis % rank for axis in axes] if axes else list(range(rank))
