"""Graphs as builders take them."""

from __future__ import annotations

import onnx_ir as ir
from google.protobuf.message import EncodeError

from rir_deploy.errors import InputError


def model_bytes(model: ir.Model) -> bytes:
    """A model as one self-contained ONNX file in memory, its weights inside.

    Raises:
        InputError: it is larger than the 2 GB that one protobuf message can hold.
    """
    ir.external_data.load_to_model(model)  # a reference to a file beside the source would dangle elsewhere
    try:
        return bytes(ir.to_proto(model).SerializeToString())
    except (ValueError, EncodeError) as error:
        raise InputError(
            "the model is larger than the 2 GB of one ONNX file; build it with --backend onnxruntime"
        ) from error


def graph_precision(model: ir.Model) -> str:
    """ "int8" for a graph with Q/DQ, "fp16" for one whose convolutions are FP16, else "fp32"."""
    nodes = list(model.graph)
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        return "int8"
    weights = [node.inputs[1] for node in nodes if node.op_type == "Conv" and len(node.inputs) > 1]
    half = any(weight is not None and weight.dtype == ir.DataType.FLOAT16 for weight in weights)
    return "fp16" if half else "fp32"
