"""One node computed on arrays, by onnx's reference evaluator.

What a graph computes from constants is replaced by its result only where that result is what runtimes give. The
reference follows the newest text of the standard even for older opsets, and differs from runtimes in places; so only
the ops of `_CHECKED` are evaluated, each of which is held against ONNX Runtime in the tests. All others stay.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Operand = NDArray[np.generic] | None

# Exporters build weights (W + I) and pad amounts out of constants; larger results are not worth having.
MAX_ELEMENTS = 1 << 28
# Sums of many numbers: a runtime may add in another type than FP16.
_REDUCING = frozenset({"Gemm", "MatMul", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})
_SOFTMAX = frozenset({"LogSoftmax", "Softmax"})
_MOVING = frozenset(
    {
        *("Concat", "ConstantOfShape", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "NonZero", "OneHot", "Pad", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice"),
        *("Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
    }
)
_ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "CumSum", "Div", "Equal", "Erf", "Exp", "Floor", "Greater"),
        *("GreaterOrEqual", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or"),
        *("Pow", "Range", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub", "Sum", "Tanh", "Xor"),
    }
)
_CHECKED = _MOVING | _ELEMENTWISE | _REDUCING | _SOFTMAX
# Softmax flattened its input before.
_SOFTMAX_OPSET = 13


def evaluate_constant(node: ir.Node, operands: list[Operand], opset: int) -> NDArray[np.generic] | None:
    """The result of a node where it is known to be what runtimes give; None where the node has to stay."""
    if node.op_type not in _CHECKED or (node.op_type in _SOFTMAX and opset < _SOFTMAX_OPSET):
        return None
    arrays = [array for array in operands if array is not None]
    if sum(array.size for array in arrays) > MAX_ELEMENTS or not _is_defined(node, arrays):
        return None
    result = run_node(node, operands, opset)
    return result if result is not None and _is_plain(result) and result.size <= MAX_ELEMENTS else None


def run_node(node: ir.Node, operands: list[Operand], opset: int) -> NDArray[np.generic] | None:
    """The one result of a node as the reference computes it; None where it cannot."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(operands)]
    proto = ir.to_proto(node)
    single = onnx.NodeProto(op_type=proto.op_type, input=names, output=["y"], attribute=proto.attribute)
    inputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names if name]
    output = onnx.helper.make_value_info("y", onnx.TypeProto())
    graph = onnx.helper.make_graph([single], "constant", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feed = {name: array for name, array in zip(names, operands, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(model).run(None, feed)
    except Exception:  # the evaluator raises whatever its operators do; then the value is simply not known
        return None
    return result if isinstance(result, np.ndarray) else None


def _is_plain(array: NDArray[np.generic]) -> bool:
    """Numbers and truth values: no strings, and none of the types that numpy does not compute in itself."""
    return array.dtype.kind in "biuf"


def _is_defined(node: ir.Node, arrays: list[NDArray[np.generic]]) -> bool:
    """Whether the standard leaves nothing of this result open."""
    op, first = node.op_type, arrays[0]
    if not all(_is_plain(array) for array in arrays):
        return False
    if op in _REDUCING | _SOFTMAX | {"CumSum", "Mean", "Sum"} and any(a.dtype == np.float16 for a in arrays):
        return False
    if op in _REDUCING and any(array.size == 0 for array in arrays):
        return False
    if op in ("Div", "Mod") and first.dtype.kind in "iu":
        return bool(arrays[-1].all())
    if op == "Range":
        return first.dtype.kind in "iu"
    if op == "Cast":
        return _is_cast_defined(first, ir.DataType(node.attributes.get_int("to", 0)))
    if op.startswith("Scatter"):
        return node.attributes.get_string("reduction", "none") == "none"
    return True


def _is_cast_defined(array: NDArray[np.generic], to: ir.DataType) -> bool:
    """Whether every number has a place in the other type: what a float out of range becomes is the runtime's affair."""
    if to in (ir.DataType.UNDEFINED, ir.DataType.STRING) or to.numpy().kind not in "biuf":
        return False
    if array.dtype.kind != "f" or to.numpy().kind not in "iu":
        return True
    limits, numbers = np.iinfo(to.numpy()), array.astype(np.float64)
    return bool(np.isfinite(numbers).all() and ((numbers >= limits.min) & (numbers < limits.max + 1)).all())
