"""Float arithmetic that needs the digits of FP32: sizes, indices, counts.

FP16 holds every integer up to 2,048 and none over 65,504. So these keep FP32, whatever the rest is cast to:

1. A node on numbers that come from wide integers: sizes cast to float, positions, a count that a sum is divided by.
   What is computed from such numbers alone comes from integers too; where they meet a feature map, only that node keeps
   FP32. Pixels are 8-bit integers, and no such numbers.
2. A node on the way to a size or an index: what becomes an integer, or the scales of a Resize.
3. A sum or mean over more elements than FP16 counts, or over a dynamic number of them.
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
# The inputs that are sizes though they are floats.
_FLOAT_SIZES = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2)}
# What shape arithmetic is made of: it ends where another operator gives its numbers.
_ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Neg", "Abs", "Sign", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round"}
    | {"Min", "Max", "Clip", "Sum", "Where", "Cast", "Identity", "Concat", "Slice", "Split", "Gather", "Squeeze"}
    | {"Unsqueeze", "Reshape", "Flatten", "Expand", "Tile", "Transpose", "ReduceProd", "ReduceMax", "ReduceMin"}
)
_REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}
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
        if is_count or any(value in counts for value in operands):
            yield node
            if is_count or all(value in counts or value.dtype not in _FLOATS for value in operands):
                counts.update(value for value in node.outputs if value.dtype in _FLOATS)


def _makes_count(node: ir.Node) -> bool:
    """Whether the node turns wide integers into floats, or counts in floats."""
    if node.op_type == "Range":
        return node.outputs[0].dtype in _FLOATS
    source = node.inputs[0] if node.op_type in ("Cast", "CastLike") else None
    return source is not None and source.dtype in _WIDE and node.outputs[0].dtype in _FLOATS


def _towards_integers(graph: ir.Graph) -> set[ir.Node]:
    found: set[ir.Node] = set()
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
    for index in _FLOAT_SIZES.get(node.op_type, ()):
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
    if node.op_type == "AveragePool":
        return list(node.attributes.get_ints("kernel_shape", ()))
    if node.op_type not in _REDUCTIONS and node.op_type != "GlobalAveragePool":
        return None
    if value.shape is None:
        return [None]
    axes = range(2, len(value.shape)) if node.op_type == "GlobalAveragePool" else _axes(node, len(value.shape))
    return [None] if axes is None else [value.shape[axis] for axis in axes]


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
