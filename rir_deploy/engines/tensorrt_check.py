"""Graphs that TensorRT misreads or cannot build are refused before it sees them.

1. uint8 Q/DQ, written out or implied by a missing zero point: its parser reads it as int8 and says so in a warning.
2. a zero point that is not zero, or not a constant: the parser stops at an assertion.
3. DequantizeLinear of an int32 bias, which ONNX Runtime's quantiser writes: the parser stops.
4. a convolution with 4-bit weights: the builder fails.

From NVIDIA's "Working with Quantized Types", and seen with TensorRT-RTX 1.7.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rir_deploy.errors import InputError

_WAY_OUT = "quantise the float model with --qdq tensorrt"
_UNSIGNED = (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT4)
_FOUR_BITS = (ir.DataType.INT4, ir.DataType.UINT4)


def check_graph(model: ir.Model) -> None:
    """Refuse a graph that TensorRT would misread.

    Raises:
        InputError: names the node, the reason and the way out.
    """
    for node in model.graph.all_nodes():
        reason = _misread(node) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
        if reason is not None:
            name = node.name or node.outputs[0].name
            raise InputError(f"TensorRT does not take the node '{name}' ({node.op_type}): {reason}; {_WAY_OUT}")


def _misread(node: ir.Node) -> str | None:
    dtype = _quantised_type(node)
    if dtype in _FOUR_BITS and any(user.op_type == "Conv" for user in node.outputs[0].consumers()):
        return "no TensorRT computes a convolution with 4-bit weights"
    if dtype in _UNSIGNED:
        return f"it quantises to {dtype.name.lower()}, which would be read as signed"
    if node.op_type == "DequantizeLinear" and dtype == ir.DataType.INT32:
        return "it dequantises an int32 bias; the bias has to stay in floating point"
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is None:
        return None
    tensor = ir.convenience.get_const_tensor(zero_point)
    if tensor is None:
        return "its zero point is not a constant"
    if np.any(np.asarray(tensor.numpy()).astype(np.float32)):
        return "its zero point is not zero; quantisation has to be symmetric"
    return None


def _quantised_type(node: ir.Node) -> ir.DataType:
    """The integer type on the quantised side of a node; the standard's default is uint8."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None:
        tensor = ir.convenience.get_const_tensor(zero_point)
        known = zero_point.dtype if tensor is None else tensor.dtype
        if known is not None:
            return known
    if node.op_type == "DequantizeLinear":
        source = node.inputs[0]
        tensor = None if source is None else ir.convenience.get_const_tensor(source)
        known = tensor.dtype if tensor is not None else (None if source is None else source.dtype)
        if known is not None:
            return known
        producer = None if source is None else source.producer()
        return ir.DataType.UINT8 if producer is None else _quantised_type(producer)
    chosen = node.attributes.get_int("output_dtype", 0)
    return ir.DataType(chosen) if chosen else ir.DataType.UINT8
