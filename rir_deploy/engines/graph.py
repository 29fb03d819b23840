"""Graphs as builders take them."""

from __future__ import annotations

import onnx_ir as ir
from google.protobuf.message import EncodeError

from rir_deploy.errors import InputError
from rir_deploy.onnx_file import read_provenance

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)


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
    """What the layers of a graph compute in.

    "int8" for a graph with Q/DQ pairs or integer layers; "fp16" where a layer has FP16 weights, or, in a graph whose
    layers have none, where any tensor is FP16; else "fp32".
    """
    nodes = list(model.graph)
    if any(node.op_type in _QUANTIZED for node in nodes):
        return "int8"
    weights = [node.inputs[1] for node in nodes if node.op_type in _LAYERS and len(node.inputs) > 1]
    stored = {weight.dtype for weight in weights if weight is not None and weight.const_value is not None}
    types = stored or {value.dtype for node in nodes for value in node.outputs}
    return "fp16" if ir.DataType.FLOAT16 in types else "fp32"


def model_precision(model: ir.Model) -> str:
    """The precision that a model is judged by: INT8 where the graph says so, whoever wrote it and whatever it records.

    A graph that this tool cast to FP16 is one even where its layers had to stay in FP32.
    """
    provenance, found = read_provenance(model), graph_precision(model)
    return "fp16" if found == "fp32" and provenance is not None and provenance.precision == "fp16" else found
