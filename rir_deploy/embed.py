"""Preprocessing inside the graph, for users who feed camera images: uint8 N x H x W x C in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.errors import InputError


def embed_preprocessing(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """A model that takes uint8 [N, H, W, C] images and does the recipe's arithmetic itself.

    The original input (float32 [N, C, H, W]) becomes an inner tensor; the new input keeps its name.

    Raises:
        InputError: the input is not one float32 image of the recipe's shape.
    """
    result = model.clone()
    graph = result.graph
    old = graph.inputs[0]
    channels, height, width = preprocessing.input_shape
    shape = tuple(old.shape or ())
    if old.dtype != ir.DataType.FLOAT or len(shape) != 4 or shape[1:] != (channels, height, width):
        raise InputError(
            f"the input '{old.name}' is {old.dtype} {list(shape)}, not float32 "
            f"[N, {channels}, {height}, {width}] as the recipe's preprocessing makes it; embed it once, in a model "
            "of that input size"
        )
    scale, offset = preprocessing.affine()
    name = str(old.name)
    new = ir.Value(
        name=name, shape=ir.Shape([shape[0], height, width, channels]), type=ir.TensorType(ir.DataType.UINT8)
    )
    old.name = f"{name}_normalized"
    factor, shift = (_constant(graph, f"{name}_{key}", array) for key, array in (("scale", scale), ("offset", offset)))
    nodes = _chain(new, factor, shift, name)
    graph.inputs[0] = new
    for node in reversed(nodes):
        _prepend(graph, node)
    old.replace_all_uses_with(nodes[-1].outputs[0])
    return result


def _chain(new: ir.Value, factor: ir.Value, shift: ir.Value, name: str) -> list[ir.Node]:
    """Cast, move channels first, scale, shift."""
    cast = ir.Node("", "Cast", [new], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name=f"{name}/Cast")
    move = ir.Node("", "Transpose", cast.outputs, [ir.AttrInt64s("perm", [0, 3, 1, 2])], name=f"{name}/Transpose")
    multiply = ir.Node("", "Mul", [move.outputs[0], factor], name=f"{name}/Mul")
    add = ir.Node("", "Add", [multiply.outputs[0], shift], name=f"{name}/Add")
    nodes = [cast, move, multiply, add]
    for node, suffix in zip(nodes, ("float", "nchw", "scaled", "normalized"), strict=True):
        node.outputs[0].name = f"{name}_{suffix}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return nodes


def _constant(graph: ir.Graph, name: str, vector: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> ir.Value:
    array = vector.astype(np.float32).reshape(1, -1, 1, 1)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _prepend(graph: ir.Graph, node: ir.Node) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
