"""Where infinities are a fault and where they are ordinary.

In weights, numbers that a layer multiplies by, they are a fault. Elsewhere they are ordinary: the value of a pad before
a maximum, a bound of a clip, a mask that is added.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

# Every float input of these is multiplied or normalised.
_LAYERS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "RNN", "GRU", "LSTM", "PRelu", "Mul", "Div"}
    | {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
    | {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
# These hand numbers on as they are.
_CARRIERS = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"}
    | {"Concat", "Expand", "Tile", "Gather", "DequantizeLinear", "Constant"}
)
# These give an infinity on where they are given one; a maximum, a softmax or a clip does not.
_HOLDERS = _CARRIERS | {"Pad", "Where", "Add", "Sub", "Sum", "Max", "Min", "Neg", "Mul", "Trilu", "GatherND"}
_HOLDERS |= {"GatherElements", "ScatterND", "ScatterElements"}
# What these give depends on no number of what they read.
_SIZES = frozenset({"Shape", "Size"})


def is_weight(value: ir.Value) -> bool:
    """Whether a layer reads the constant ``value``, or what is only moved about or cast of it."""
    return any(node.op_type in _LAYERS for node in _readers(value))


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    waiting, seen = [value], {value}
    while waiting:
        for usage in waiting.pop().uses():
            yield usage.node
            if usage.node.op_type in _CARRIERS:
                fresh = [output for output in usage.node.outputs if output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)


def with_infinities(graph: ir.Graph) -> frozenset[ir.Value]:
    """The tensors that may hold infinities by design: what depends on no image, as a mask does, and what comes of a
    constant with infinities or of such a tensor."""
    found = {value for value in graph.initializers.values() if _has_infinity(value)}
    constant: set[ir.Value] = set()
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if node.op_type in _SIZES or all(value in constant or _is_stored(value) for value in read):
            constant.update(node.outputs)
            found.update(node.outputs)
        elif node.op_type in _HOLDERS and any(value in found for value in read):
            found.update(node.outputs)
    return frozenset(found)


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _has_infinity(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and bool(np.isinf(tensor.numpy()).any())
