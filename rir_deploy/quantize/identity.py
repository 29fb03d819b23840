"""The identity of a folded block outside of the kernel that is rounded.

A fold adds an identity to kernels whose weights are some 20 times smaller, and so its tap sets the step of its row.
Taken out again, W x = (W - D) x + d x with D the diagonal of the middle tap, the rest of the row is rounded finely, at
the price of a second, depthwise product and a sum a block, whose operands are rounded as well.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.graph.prepare import label

# A tap further out than this many standard deviations of its row is an identity and not a weight among others.
_FAR = 4.0


def split_identities(graph: ir.Graph) -> int:
    """Split every convolution that holds an identity, in place; returns how many there were."""
    found = [(node, taps) for node in graph if (taps := _identity(node)) is not None]
    for node, taps in found:
        _split(graph, node, taps)
    return len(found)


def _identity(node: ir.Node) -> NDArray[np.float32] | None:
    """The diagonal of the middle tap, [channels], where rows hold an identity there; None if no row does."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.outputs[0].is_graph_output():
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or weight.dtype != ir.DataType.FLOAT:
        return None
    array = weight.const_value.numpy()
    if array.ndim != 4 or array.shape[0] != array.shape[1] or array.shape[0] < 2 or not _in_place(node, array.shape):
        return None
    middle = np.diagonal(array[:, :, array.shape[2] // 2, array.shape[3] // 2])
    rows = np.abs(array).reshape(len(array), -1)
    far = (np.abs(middle) >= rows.max(axis=1)) & (np.abs(middle) > _FAR * array.reshape(len(array), -1).std(axis=1))
    return np.where(far, middle, np.float32(0)).astype(np.float32) if far.any() else None


def _in_place(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Whether the middle tap reads the pixel that it writes: stride 1, an odd kernel, as much padding as it needs."""
    attributes = node.attributes
    half = [size // 2 for size in shape[2:]]
    pads = list(attributes["pads"].as_ints()) if "pads" in attributes else [0, 0, 0, 0]
    dilations = list(attributes["dilations"].as_ints()) if "dilations" in attributes else [1, 1]
    strides = list(attributes["strides"].as_ints()) if "strides" in attributes else [1, 1]
    automatic = "auto_pad" in attributes and attributes["auto_pad"].as_string() != "NOTSET"
    wanted = [count * dilation for count, dilation in zip(half, dilations, strict=True)] * 2
    odd = all(size % 2 for size in shape[2:])
    grouped = "group" in attributes and attributes["group"].as_int() != 1
    return odd and not automatic and not grouped and strides == [1, 1] and pads == wanted


def _split(graph: ir.Graph, node: ir.Node, taps: NDArray[np.float32]) -> None:
    """The sum keeps the name of the output, the convolution its own."""
    x, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    assert weight is not None
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    index = np.arange(len(array))
    array[index, index, array.shape[2] // 2, array.shape[3] // 2] -= taps
    name = str(output.name)
    rest = _initializer(graph, f"{name}_rest", array)
    diagonal = _initializer(graph, f"{name}_diagonal", taps.reshape(-1, 1, 1, 1))
    node.replace_input_with(1, rest)
    total = ir.Value(name=name, type=output.type, shape=output.shape)
    output.replace_all_uses_with(total)
    output.name = f"{name}_kernel"
    through = ir.Value(name=f"{name}_identity", type=output.type, shape=output.shape)
    group = [ir.AttrInt64("group", len(taps))]
    depthwise = ir.Node("", "Conv", [x, diagonal], group, outputs=[through], name=f"{label(node)}/identity")
    add = ir.Node("", "Add", [output, through], outputs=[total], name=f"{label(node)}/sum")
    graph.insert_after(node, [depthwise, add])
    if not weight.uses() and not weight.is_graph_output():
        del graph.initializers[str(weight.name)]


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value
