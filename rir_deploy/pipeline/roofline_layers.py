"""What the layers of a graph have to do: multiply-adds, bytes and shapes, by the graph's own account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from rir_deploy.errors import UsageError
from rir_deploy.fold.layers import Layer, list_layers
from rir_deploy.fold.work import layer_macs
from rir_deploy.pipeline.places import place_of
from rir_deploy.roofline.model import LayerWork
from rir_deploy.roofline.shapes import Shape

# Runtimes compute these in the layer before them: what is written is what comes out of them.
_FUSED = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Identity"})
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class GraphLayer:
    """A layer's work, the convolution it is (None for others), and the names that a runtime may know it by."""

    work: LayerWork
    shape: Shape | None
    names: frozenset[str]


def graph_layers(model: ir.Model, batch: int, image: ImageShape | None = None) -> tuple[GraphLayer, ...]:
    """The layers that multiply, in the order of the graph, for ``batch`` images.

    ``image`` (C, H, W) is needed where the model leaves its size open. The model is not changed.

    Raises:
        UsageError: the image size is open and not given.
    """
    sizes = model.graph.inputs[0].shape
    if sizes is not None and any(not isinstance(size, int) for size in list(sizes)[1:]):
        if image is None:
            raise UsageError(f"the input '{model.graph.inputs[0].name}' leaves its image size open; name one: --recipe")
        model = _sized(model, image)
    times = 1 if sizes is not None and len(sizes) and isinstance(sizes[0], int) else batch
    pairs = zip(layer_macs(model), list_layers(model), strict=True)
    return tuple(_layer(node, layer, times * macs, batch) for (node, macs), layer in pairs)


def _sized(model: ir.Model, image: ImageShape) -> ir.Model:
    """A copy for images of one size. What was known of the tensors depended on none: it is inferred again."""
    sized = model.clone()
    value = sized.graph.inputs[0]
    first = next(iter(value.shape)) if value.shape is not None else None
    value.shape = ir.Shape([first, *image])
    for node in sized.graph:
        for output in node.outputs:
            output.shape = None
    return sized


def _layer(node: ir.Node, layer: Layer, macs: int, batch: int) -> GraphLayer:
    output = node.outputs[0]
    work = LayerWork(
        layer.name,
        place_of(output).block,
        _precision(layer),
        macs,
        layer.weight_bytes,
        _bytes(node.inputs[0], layer.activations, batch),
        _bytes(output, _written_type(output, layer.activations), batch),
    )
    return GraphLayer(work, _conv_shape(node, layer, batch), frozenset({layer.name, *_names(output)}))


def _names(value: ir.Value) -> list[str]:
    """A layer's result, and what it is called behind the nodes that are computed with it: runtimes name by either."""
    readers = [use.node for use in value.uses()]
    fused = len(readers) == 1 and readers[0].op_type in (*_FUSED, "BatchNormalization")
    return [str(value.name), *(_names(readers[0].outputs[0]) if fused else [])]


def _precision(layer: Layer) -> str:
    if "int" in layer.activations and "int" in layer.weights:
        return "int8"
    return "fp16" if layer.activations == "float16" else "fp32"


def _bytes(value: ir.Value | None, dtype: str, batch: int) -> int:
    sizes = [] if value is None or value.shape is None else list(value.shape)[1:]
    known = [size for size in sizes if isinstance(size, int)]
    return batch * prod(known) * _itemsize(dtype) if len(known) == len(sizes) else 0


def _itemsize(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize
    except TypeError:  # "unknown", where the graph does not say
        return np.dtype(np.float32).itemsize


def _written_type(value: ir.Value, read: str) -> str:
    """The type in which a layer's result is stored: the integers of the QuantizeLinear behind it, or a float.

    Where the graph says nothing, it is the type that the layer reads.
    """
    readers = [use.node for use in value.uses()]
    if readers and all(node.op_type == "QuantizeLinear" for node in readers):
        zero = readers[0].inputs[2] if len(readers[0].inputs) > 2 else None
        tensor = None if zero is None else ir.convenience.get_const_tensor(zero)
        return "uint8" if tensor is None else str(tensor.dtype.numpy())
    if len(readers) == 1 and readers[0].op_type in _FUSED:
        return _written_type(readers[0].outputs[0], read)
    if value.dtype is not None:
        return str(value.dtype.numpy())
    return read if "float" in read else "float32"


def _conv_shape(node: ir.Node, layer: Layer, batch: int) -> Shape | None:
    """The convolution as the ceilings have it; None for what is none, or is of a kind that is not measured."""
    image = node.inputs[0].shape if node.inputs[0] is not None else None
    if node.op_type != "Conv" or image is None or len(image) != 4 or len(layer.shape) != 4:
        return None
    height, width, outputs, inside = image[2], image[3], layer.shape[0], layer.shape[1]
    sides, groups = layer.shape[2:], _ints(node, "group", [1])[0]
    numbers = (height, width, outputs, inside, *sides)
    known = [number for number in numbers if isinstance(number, int)]
    if (
        len(known) < len(numbers)
        or any(side % 2 == 0 for side in known[4:])
        or _ints(node, "dilations", [1, 1]) != [1, 1]
    ):
        return None
    stride = _ints(node, "strides", [1, 1])
    return Shape(
        known[3] * groups, known[2], (known[0], known[1]), (known[4], known[5]), (stride[0], stride[1]), groups, batch
    )


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    if attribute is None:
        return list(default)
    return [attribute.as_int()] if attribute.type == ir.AttributeType.INT else list(attribute.as_ints())
