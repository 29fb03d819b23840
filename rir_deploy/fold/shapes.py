"""Shape inference by onnx, for models of any size: it never sees a weight."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from rir_deploy.errors import InputError

logger = logging.getLogger(__name__)
# Shapes, axes and pads are smaller and have to be seen; protobuf cannot hold more than 2 GB of what is not.
_SEEN_BYTES = 1000
_UNKNOWN = "rir_deploy.unknown"


class InferShapes(ir.passes.InPlacePass):
    """Set the type and shape of every value of the graph.

    What a file declares is only believed where it agrees with what follows from its inputs and weights: where it does
    not, it is inferred without that, and where that fails too, shapes inside of the graph are unknown.

    As onnx-ir's own pass, but linear in the number of weights, and without reading the whole model back.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        with _weights_as_inputs(model.graph):
            proto = ir.to_proto(model)
        _forget_negative(proto.graph)
        safe = _slices_can_be_inferred(proto)
        inferred = _inferred(proto) if safe else None
        if inferred is None:
            _forget(model.graph)
            inferred = _inferred(_without_shapes(proto)) if safe else None
        if inferred is None:
            return ir.passes.PassResult(model, True)
        values = {value.name: value for node in model.graph for value in node.outputs}
        modified = False
        for info in (*inferred.graph.value_info, *inferred.graph.output):
            if info.name in values and info.type.HasField("tensor_type"):
                modified |= _set_type(values[info.name], info.type.tensor_type)
        return ir.passes.PassResult(model, modified)


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    try:
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        logger.info("shapes cannot be inferred: %s", error)  # what needs them says so where it is refused
        return None


def _forget_negative(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a size that is not known."""
    for info in (*graph.input, *graph.value_info, *graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _without_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that declares shapes of its inputs only."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return copy


def _slices_can_be_inferred(proto: onnx.ModelProto) -> bool:
    """onnx aborts the process where a Slice reads a tensor of a size below zero, as too large a window gives.

    Looked for by inference that knows no Slice: what follows from one is not seen. False where that finds no answer.

    Raises:
        InputError: there is such a tensor.
    """
    probe = _without_shapes(proto)
    nodes = [node for graph in _graphs(probe.graph) for node in graph.node]
    slices = [node for node in nodes if node.op_type == "Slice" and node.domain in ("", "ai.onnx")]
    for node in slices:
        node.op_type, node.domain = "Unknown", _UNKNOWN
    probe.opset_import.append(onnx.helper.make_opsetid(_UNKNOWN, 1))
    if not slices:
        return True
    try:
        graph = onnx.shape_inference.infer_shapes(probe, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return False
    read = {node.input[0] for node in slices if node.input}
    for info in (info for part in _graphs(graph) for info in (*part.input, *part.value_info, *part.output)):
        dims = info.type.tensor_type.shape.dim
        if info.name in read and any(dim.dim_value < 0 for dim in dims):
            sizes = "x".join(str(dim.dim_value) if dim.HasField("dim_value") else "?" for dim in dims)
            raise InputError(f"the model is not valid ONNX: '{info.name}' has the size {sizes}; export it again")
    return True


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that are nested in it."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for part in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graphs(part)


def _forget(graph: ir.Graph) -> None:
    """Shapes of what nodes give; those of the graph's outputs stay where nothing inside reads them."""
    outputs = set(graph.outputs)
    for node in graph:
        for value in node.outputs:
            if value not in outputs or value.uses():
                value.shape = None


@contextmanager
def _weights_as_inputs(graph: ir.Graph) -> Iterator[None]:
    """Weights without their data: for a while they are inputs, of which the type is enough."""
    inputs, weights = list(graph.inputs), list(graph.initializers.values())
    known = set(inputs)
    for weight in weights:
        if weight.name is not None and _is_hidden(weight.const_value):
            assert weight.const_value is not None
            weight.shape = ir.Shape(weight.const_value.shape.numpy())
            weight.dtype = weight.const_value.dtype
            del graph.initializers[weight.name]
            if weight not in known:
                graph.inputs.append(weight)
    try:
        yield
    finally:
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        for weight in weights:  # all, so that their order is what it was
            graph.initializers.pop(str(weight.name), None)
            graph.initializers.add(weight)


def _is_hidden(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > _SEEN_BYTES


def _set_type(value: ir.Value, found: onnx.TypeProto.Tensor) -> bool:
    """Whether the value's type or shape is another now."""
    before = value.dtype, value.shape
    value.dtype = ir.DataType(found.elem_type)
    if found.HasField("shape"):
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in found.shape.dim]
        value.shape = ir.Shape(dims)
    return (value.dtype, value.shape) != before
