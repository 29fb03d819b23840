"""What alone reads a layer and belongs to it goes into its weights: a normalisation, or a bias.

A BatchNormalization behind a convolution:

y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
  = (s W) x + (s (b - mean) + beta)  with s = gamma / sqrt(var + eps), a channel at a time

Between a convolution and its quantised output a normalisation would be a pass over the tensor in float. After a fold
there is none; this is for graphs that were not folded. Behind a sum of branches it stays where it is.

A constant that is added to the product of a matrix becomes the bias of a Gemm: a bias can be corrected.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def absorb_normalizations(graph: ir.Graph) -> int:
    """Absorb them in place and return how many there were. The tensor behind each keeps its name."""
    found = [pair for node in graph if (pair := _pair(node)) is not None]
    for conv, norm in found:
        _absorb(graph, conv, norm)
    return len(found)


def absorb_biases(graph: ir.Graph) -> int:
    """Make a MatMul and the constant added behind it a Gemm, in place; the number of them. Tensors keep their names."""
    found = [pair for node in graph if (pair := _product_and_bias(node)) is not None]
    for product, add, bias in found:
        name = str(add.outputs[0].name)
        inputs = [*product.inputs, _initializer(graph, f"{name}.bias", bias)]
        _replace(graph, product, add, "Gemm", inputs)
    return len(found)


def scaled(weight: Floats, bias: Floats, norm: tuple[Floats, Floats, Floats, Floats], epsilon: float) -> list[Floats]:
    """Weight [rows, ...] and bias [rows] with a normalisation (gamma, beta, mean, var) behind them."""
    gamma, beta, mean, var = norm
    factor = gamma / np.sqrt(var + epsilon)
    return [weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), factor * (bias - mean) + beta]


def _pair(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    if node.op_type != "Conv" or node.outputs[0].is_graph_output() or len(node.outputs[0].uses()) != 1:
        return None
    norm, index = next(iter(node.outputs[0].uses()))
    if norm.op_type != "BatchNormalization" or index != 0 or len(norm.outputs) != 1:
        return None
    constants = [*node.inputs[1:], *norm.inputs[1:]]
    floats = all(value is None or value.dtype == ir.DataType.FLOAT for value in constants)
    return (node, norm) if floats and all(v is None or v.const_value is not None for v in constants) else None


def _absorb(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> None:
    weight, bias = ([*conv.inputs, None])[1:3]
    array = _array(weight)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    gamma, beta, mean, var = (_array(value) for value in norm.inputs[1:5])
    old = np.zeros(len(array)) if bias is None else _array(bias)
    name = str(norm.outputs[0].name)
    inputs: list[ir.Value | None] = [conv.inputs[0]]
    for part, values in zip(("weight", "bias"), scaled(array, old, (gamma, beta, mean, var), epsilon), strict=True):
        inputs.append(_initializer(graph, f"{name}.{part}", values))
    _replace(graph, conv, norm, "Conv", inputs)


def _product_and_bias(node: ir.Node) -> tuple[ir.Node, ir.Node, Floats] | None:
    """A product of matrices, the Add that alone reads it, and one constant a column."""
    if node.op_type != "MatMul" or node.outputs[0].is_graph_output() or len(node.outputs[0].uses()) != 1:
        return None
    (use,) = node.outputs[0].uses()
    x, weight = node.inputs
    bias = use.node.inputs[1 - use.idx] if use.node.op_type == "Add" else None
    if x is None or x.shape is None or len(x.shape) != 2 or weight is None or weight.const_value is None:
        return None
    if (
        bias is None
        or bias.const_value is None
        or bias.dtype != ir.DataType.FLOAT
        or len(weight.const_value.shape) != 2
    ):
        return None
    rows, array = weight.const_value.numpy().shape[1], _array(bias)
    if array.ndim > 2 or array.size not in (1, rows) or (array.ndim == 2 and array.shape[0] != 1):
        return None
    return node, use.node, np.broadcast_to(array.ravel(), (rows,))


def _replace(graph: ir.Graph, layer: ir.Node, behind: ir.Node, op_type: str, inputs: list[ir.Value | None]) -> None:
    """One node in the place of two: it is called as the layer was, and its output as that of the node behind."""
    result = behind.outputs[0]
    is_output = [index for index, value in enumerate(graph.outputs) if value is result]
    output = ir.Value(name=str(result.name), type=result.type, shape=result.shape)
    metadata = dict(layer.metadata_props)
    attributes = layer.attributes.values()
    new = ir.Node("", op_type, inputs, attributes, outputs=[output], name=layer.name, metadata_props=metadata)
    graph.insert_after(behind, new)
    for index in is_output:
        graph.outputs[index] = output
    result.replace_all_uses_with(output)
    result.name = None
    graph.remove([behind, layer], safe=True)


def _initializer(graph: ir.Graph, name: str, values: Floats) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(values.astype(np.float32), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(values.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _array(value: ir.Value | None) -> Floats:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)
