"""Raising a graph's opset without touching its nodes, where the newer definitions only allow more."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from rir_deploy.errors import InputError
from rir_deploy.precision import label

# A scale a channel came with opset 13, FP16 scales with opset 19.
PER_CHANNEL_OPSET = 13
FP16_SCALES_OPSET = 19
INT4_OPSET = 21

# Their definitions of opset 11 to 21 differ in types allowed and optional parts added; with inputs and attributes in
# the form of the older one they mean the same in the newer one.
_COMPATIBLE = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"}
    | {"DequantizeLinear", "Div", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MatMul"}
    | {"MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Shape", "Slice", "Sub", "Transpose"}
)


def raise_opset(model: ir.Model, opset: int) -> None:
    """Make ``model`` at least ``opset`` (up to 21), in place, and of the IR version that came with it.

    Raises:
        InputError: an operator in it has changed its meaning, or its form, since.
    """
    current = model.graph.opset_imports.get("", 0)
    if current >= opset:
        return
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx") or (node.op_type in _COMPATIBLE and current >= 11):
            continue
        if _since(node, current) != _since(node, opset):
            raise InputError(
                f"'{label(node)}' is a {node.op_type} of opset {current}, which changed before opset {opset}: "
                f"export the model with opset {opset} or newer"
            )
    model.graph.opset_imports[""] = opset
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    model.ir_version = max(model.ir_version, least)


def _since(node: ir.Node, opset: int) -> int | None:
    try:
        return int(onnx.defs.get_schema(node.op_type, max_inclusive_version=opset).since_version)
    except onnx.defs.SchemaError:
        return None
