"""What NVIDIA's ONNX parser does not take, or takes for something else: refused before it sees it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rir_deploy.errors import InputError
from rir_deploy.precision import label

_WAY_OUT = "quantise the FP32 model with the flavour 'tensorrt'"
_ALLOWED = frozenset({ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1})
_INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
    | {"QLinearAdd", "QGemm", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConcat"}
)


def check_tensorrt_graph(model: ir.Model) -> None:
    """Refuse Q/DQ that TensorRT rejects or misreads. A graph without Q/DQ passes.

    1. uint8 (also by ONNX's default, where no zero point says otherwise): read as int8 without a word.
    2. int32 bias behind a DequantizeLinear, as ONNX Runtime's quantiser writes it: rejected by the parser.
    3. Zero points other than 0, or unknown before run time: rejected by the parser.
    4. Operators that compute on integers themselves.

    Raises:
        InputError: naming the node, the reason and the way out.
    """
    for node in model.graph.all_nodes():
        reason = _reason(node)
        if reason is not None:
            raise InputError(f"TensorRT does not take the {node.op_type} '{label(node)}': {reason}; {_WAY_OUT}")


def _reason(node: ir.Node) -> str | None:
    if node.op_type in _INTEGER_OPERATORS:
        return "it takes Q/DQ around float operators, not integer operators"
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = _integer_type(node, zero_point)
    if dtype == ir.DataType.UINT8:
        return "it is uint8, which the parser reads as int8 without a word"
    if dtype == ir.DataType.INT32:
        return "it holds an int32 bias, and the bias must stay float"
    if dtype is not None and dtype not in _ALLOWED:
        return f"its integers are {dtype}, and the parser knows int8"
    return _zero_point_reason(zero_point)


def _integer_type(node: ir.Node, zero_point: ir.Value | None) -> ir.DataType | None:
    """The type on the integer side; None where the graph does not tell."""
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == "DequantizeLinear":
        return None if node.inputs[0] is None else node.inputs[0].dtype
    stated = node.attributes["output_dtype"].as_int() if "output_dtype" in node.attributes else 0
    return ir.DataType(stated) if stated else ir.DataType.UINT8


def _zero_point_reason(zero_point: ir.Value | None) -> str | None:
    if zero_point is None:
        return None
    tensor = ir.convenience.get_const_tensor(zero_point)
    if tensor is None:
        return f"its zero point '{zero_point.name}' is not a constant"
    largest = np.abs(tensor.numpy().astype(np.float32)).max(initial=0.0)
    return f"its zero point '{zero_point.name}' is not 0 everywhere" if largest else None
