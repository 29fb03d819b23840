"""An ONNX graph into a TensorRT network; what the parser refuses, in ONNX's own terms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx_ir as ir

from rir_deploy.engines.graph import model_bytes
from rir_deploy.engines.tensorrt_log import clean
from rir_deploy.errors import InputError

if TYPE_CHECKING:
    import tensorrt as trt


def parse_model(parser: trt.OnnxParser, model: ir.Model, label: str) -> None:
    """Fill the parser's network. ``label`` is TensorRT's name and version.

    Raises:
        InputError: the parser does not take the graph, naming the node, its ONNX operator and the reason.
    """
    if parser.parse(model_bytes(model)):
        return
    if not parser.num_errors:
        raise InputError(f"{label} does not take the model and gives no reason; check it with the inspect command")
    error: trt.ParserError = parser.get_error(0)
    where = _place(error, list(model.graph))
    raise InputError(f"{label} does not take {where}: {_reason(error)}; {_way_out(error)}")


def _place(error: trt.ParserError, nodes: list[ir.Node]) -> str:
    """The node by its name, or where it has none by the name of its output."""
    index = int(error.node())
    if not 0 <= index < len(nodes):
        return "the model"
    name = error.node_name() or nodes[index].outputs[0].name
    return f"the node '{name}' ({error.node_operator() or nodes[index].op_type})"


def _reason(error: trt.ParserError) -> str:
    """The parser's own words, without the C++ of its assertions; its error code where it says no more than "false"."""
    text = clean(str(error.desc()).replace("Assertion failed: ", "")).strip('"')
    text = re.sub(r'^.*? && "', "", text)
    text = re.sub(r"^\S.*?\): (?=[A-Z])", "", text)
    if text.lower() in ("", "false", "true"):
        code = getattr(error.code(), "name", str(error.code()))
        return str(code).lower().replace("_", " ")
    return text


def _way_out(error: trt.ParserError) -> str:
    if "QuantizeLinear" in str(error.node_operator()):
        return "quantize the FP32 model with --qdq tensorrt"
    return "change it or export with another opset"
