"""Raising the opset of a graph: by its number alone where nothing changes, else with onnx's converter, and checked."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from rir_deploy.errors import InputError
from rir_deploy.graph.equivalence import DifferenceError, compare_graphs
from rir_deploy.graph.evaluate import Graph
from rir_deploy.graph.normalize import MESSAGE_BYTES
from rir_deploy.graph.prepare import label
from rir_deploy.graph.runtime import first_line

# The oldest that onnx's converter reads without fault: before it, broadcasting was spelt in attributes.
OLDEST_OPSET = 7
# The definitions of these from opset 11 to 21 differ in types allowed and optional parts added; with inputs and
# attributes in the form of the older one they mean the same in the newer one.
_COMPATIBLE = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"}
    | {"DequantizeLinear", "Div", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MatMul"}
    | {"MaxPool", "Mul", "Pad", "QuantizeLinear", "Relu", "Reshape", "Shape", "Slice", "Sub", "Transpose"}
)
# Since when a Resize says how places are counted.
_RESIZE_OPSET = 11


def raise_opset(model: ir.Model, opset: int) -> None:
    """Make ``model`` at least ``opset`` (up to 21), in place, and of the IR version that came with it.

    Raises:
        InputError: an operator in it has changed its meaning, or its form, since: `convert_opset` may convert it.
    """
    changed = _changed(model, opset)
    if changed is not None:
        raise InputError(
            f"'{label(changed)}' is a {changed.op_type} of opset {_current(model)}, which changed before opset "
            f"{opset}: export the model with opset {opset} or newer"
        )
    if _current(model) < opset:
        model.graph.opset_imports[""] = opset
        least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
        model.ir_version = max(model.ir_version, least)


def convert_opset(model: ir.Model, opset: int) -> ir.Model:
    """The model itself where `raise_opset` takes it; else a copy that onnx's converter has rewritten for ``opset``.

    The copy keeps the names of inputs, outputs and weights, and the metadata; it was run beside the original.

    Raises:
        InputError: the model is older than `OLDEST_OPSET`, onnx does not convert it, or the copy differs.
    """
    if _changed(model, opset) is None:
        return model
    current = _current(model)
    advice = f"export the model with opset {opset} or newer"
    if current < OLDEST_OPSET:
        raise InputError(f"the model is written in opset {current}, which cannot be converted: {advice}")
    try:
        proto = ir.to_proto(InlinePass()(model.clone()).model)
        if proto.ByteSize() > MESSAGE_BYTES:
            raise InputError(f"the model of opset {current} is too large for onnx's converter: {advice}")
        converted = ir.from_proto(onnx.version_converter.convert_version(proto, opset))
    except InputError:
        raise
    except Exception as error:  # of the converter, or of protobuf
        reason = first_line(error)
        raise InputError(
            f"onnx does not convert the model from opset {current} to {opset} ({reason}): {advice}"
        ) from error
    if current < _RESIZE_OPSET <= opset:
        _keep_resizing(converted)
    _copy_metadata(model, converted)
    try:
        check = compare_graphs(Graph(model), Graph(converted))
    except DifferenceError as error:
        raise InputError(
            f"onnx's conversion of the model from opset {current} to {opset} would change it ({error}): {advice}"
        ) from error
    if check.skipped:
        raise InputError(
            f"the model's conversion from opset {current} to {opset} cannot be checked ({check.skipped}): {advice}"
        )
    return converted


def _keep_resizing(model: ir.Model) -> None:
    """Resize and Upsample took the corner of a pixel for its place at first; onnx's converter does not say so."""
    for node in model.graph.all_nodes():
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
            node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
            if node.attributes.get_string("mode", "nearest") == "nearest":
                node.attributes.add(ir.AttrString("nearest_mode", "floor"))


def _current(model: ir.Model) -> int:
    return model.graph.opset_imports.get("", 0)


def _changed(model: ir.Model, opset: int) -> ir.Node | None:
    """The first node that another opset defines otherwise; None where there is none, or the model is new enough."""
    current = _current(model)
    if current >= opset:
        return None
    for node in model.graph.all_nodes():
        if node.domain or (node.op_type in _COMPATIBLE and current >= 11):
            continue
        if _since(node, current) != _since(node, opset):
            return node
    return None


def _since(node: ir.Node, opset: int) -> int | None:
    try:
        return int(onnx.defs.get_schema(node.op_type, max_inclusive_version=opset).since_version)
    except onnx.defs.SchemaError:
        return None


def _copy_metadata(before: ir.Model, after: ir.Model) -> None:
    """The converter drops metadata, and gives one name to all the nodes that it makes of one."""
    after.metadata_props.update(before.metadata_props)
    after.producer_name, after.producer_version = before.producer_name, before.producer_version
    after.graph.metadata_props.update(before.graph.metadata_props)
    producers = {value.name: node for node in before.graph for value in node.outputs}
    names = {node.name for node in before.graph}
    for node in after.graph:
        source = producers.get(node.outputs[0].name)
        if source is not None:
            node.name = source.name
            node.metadata_props.update(source.metadata_props)
        elif node.name in names:
            node.name = f"{node.name}/{node.outputs[0].name}"
