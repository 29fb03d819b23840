"""Shape inference by onnx, for models of any size: it never sees a weight."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

logger = logging.getLogger(__name__)
# Shapes, axes and pads are smaller and have to be seen; protobuf cannot hold more than 2 GB of what is not.
_SEEN_BYTES = 1000


class InferShapes(ir.passes.InPlacePass):
    """Set the type and shape of every value of the graph.

    What a file declares is only believed where it agrees with what follows from its inputs and weights: where it does
    not, it is inferred without that, and where that fails too, shapes inside of the graph are unknown.

    As onnx-ir's own pass, but linear in the number of weights, and without reading the whole model back.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        with _weights_as_inputs(model.graph):
            proto = ir.to_proto(model)
        inferred = _inferred(proto)
        if inferred is None:
            _forget(model.graph)
            del proto.graph.value_info[:]
            for output in proto.graph.output:
                output.type.tensor_type.ClearField("shape")
            inferred = _inferred(proto)
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
        if weight.const_value is not None and weight.const_value.nbytes > _SEEN_BYTES and weight.name is not None:
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


def _set_type(value: ir.Value, found: onnx.TypeProto.Tensor) -> bool:
    """Whether the value's type or shape is another now."""
    before = value.dtype, value.shape
    value.dtype = ir.DataType(found.elem_type)
    if found.HasField("shape"):
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in found.shape.dim]
        value.shape = ir.Shape(dims)
    return (value.dtype, value.shape) != before
