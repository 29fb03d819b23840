"""A BatchNormalization that alone reads a convolution goes into its weights.

y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
  = (s W) x + (s (b - mean) + beta)  with s = gamma / sqrt(var + eps), a channel at a time

Between a convolution and its quantised output a normalisation would be a pass over the tensor in float. After a fold
there is none; this is for graphs that were not folded. Behind a sum of branches it stays where it is.
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
    result = norm.outputs[0]
    name = str(result.name)
    inputs = [conv.inputs[0]]
    for part, values in zip(("weight", "bias"), scaled(array, old, (gamma, beta, mean, var), epsilon), strict=True):
        inputs.append(_initializer(graph, f"{name}.{part}", values))
    is_output = [index for index, value in enumerate(graph.outputs) if value is result]
    output = ir.Value(name=name, type=result.type, shape=result.shape)
    attributes = conv.attributes.values()
    new = ir.Node(
        "", "Conv", inputs, attributes, outputs=[output], name=conv.name, metadata_props=dict(conv.metadata_props)
    )
    graph.insert_after(norm, new)
    for index in is_output:
        graph.outputs[index] = output
    result.replace_all_uses_with(output)
    result.name = None
    graph.remove([norm, conv], safe=True)


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
