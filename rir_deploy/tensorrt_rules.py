"""Graphs that TensorRT misreads or cannot build, refused before it sees them.

1. uint8 Q/DQ, written out or implied by a missing zero point: its parser reads it as int8 without a word.
2. A zero point that is not zero, or not a constant: the parser stops at an assertion.
3. A scale that is 0 or less, or not finite: the parser stops.
4. DequantizeLinear of an int32 bias, which ONNX Runtime's quantiser writes: the parser stops.
5. A convolution with 4-bit weights: the builder fails.
6. Operators that compute on integers themselves: TensorRT takes Q/DQ around float operators.

From NVIDIA's "Working with Quantized Types", and seen with TensorRT-RTX 1.7.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rir_deploy.errors import InputError

_WAY_OUT = "quantise the FP32 model with --qdq tensorrt"
_SIGNED = frozenset({ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1})
_INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    | {"QLinearAdd", "QGemm", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat"}
)


def check_tensorrt_graph(model: ir.Model) -> None:
    """Refuse a graph that TensorRT would reject or misread; one without Q/DQ passes.

    Raises:
        InputError: naming the node, the reason and the way out.
    """
    for node in model.graph.all_nodes():
        reason = _reason(node)
        if reason is not None:
            name = node.name or node.outputs[0].name
            raise InputError(f"TensorRT does not take the {node.op_type} '{name}': {reason}; {_WAY_OUT}")


def _reason(node: ir.Node) -> str | None:
    if node.op_type in _INTEGER_OPERATORS:
        return "it takes Q/DQ around float operators, not integer operators"
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    dtype = _integer_type(node)
    if dtype in (ir.DataType.INT4, ir.DataType.UINT4) and any(u.op_type == "Conv" for u in node.outputs[0].consumers()):
        return "no TensorRT computes a convolution with 4-bit weights"
    if dtype == ir.DataType.INT32:
        return "it holds an int32 bias, and the bias must stay float"
    if dtype == ir.DataType.UINT8:
        return "it is uint8, which the parser reads as int8 without a word"
    if dtype not in _SIGNED:
        return f"its integers are {dtype}, and the parser knows int8"
    return _scale_reason(node.inputs[1]) or _zero_point_reason(node.inputs[2] if len(node.inputs) > 2 else None)


def _integer_type(node: ir.Node) -> ir.DataType:
    """The type on the integer side of a node; the standard's default is uint8."""
    sides = [node.inputs[2] if len(node.inputs) > 2 else None]
    if node.op_type == "DequantizeLinear":
        sides.append(node.inputs[0])
    for value in filter(None, sides):
        tensor = ir.convenience.get_const_tensor(value)
        known = value.dtype if tensor is None else tensor.dtype
        if known is not None:
            return known
    source = node.inputs[0] if node.op_type == "DequantizeLinear" else None
    producer = None if source is None else source.producer()
    if producer is not None and producer.op_type == "QuantizeLinear":
        return _integer_type(producer)
    stated = node.attributes.get_int("output_dtype", 0)
    return ir.DataType(stated) if stated else ir.DataType.UINT8


def _scale_reason(scale: ir.Value | None) -> str | None:
    """A scale that is computed is left to the parser."""
    tensor = None if scale is None else ir.convenience.get_const_tensor(scale)
    if scale is None or tensor is None:
        return None
    steps = np.asarray(tensor.numpy()).astype(np.float64)
    return None if ((steps > 0) & np.isfinite(steps)).all() else f"its scale '{scale.name}' is not over 0 everywhere"


def _zero_point_reason(zero_point: ir.Value | None) -> str | None:
    if zero_point is None:
        return None
    tensor = ir.convenience.get_const_tensor(zero_point)
    if tensor is None:
        return f"its zero point '{zero_point.name}' is not a constant"
    largest = np.abs(np.asarray(tensor.numpy()).astype(np.float32)).max(initial=0.0)
    return f"its zero point '{zero_point.name}' is not 0 everywhere" if largest else None
