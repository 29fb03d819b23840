"""An audit of a quantised graph that shares no code with the quantiser: every number against model and ranges."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rir_deploy.quantize import RangeTable
from tests.quantize.graphs import array


def audit(original: ir.Model, quantized: ir.Model, table: RangeTable, flavour: str, limit: int = 127) -> int:
    """Assert every scale, zero point, weight and bias; the number of DequantizeLinear nodes looked at."""
    weights = {name: array(value) for name, value in original.graph.initializers.items()}
    readers = {use.node.name: node for node in quantized.graph for use in node.outputs[0].uses()}
    assert readers
    seen = 0
    for node in quantized.graph:
        if node.op_type == "QuantizeLinear":
            _activation(node, table, flavour)
        elif node.op_type == "DequantizeLinear":
            seen += 1
            source = node.inputs[0]
            assert source is not None
            if source.producer() is not None:
                pair = source.producer()
                assert pair is not None
                assert pair.inputs[1:] == node.inputs[1:], "Q and DQ of a pair have the same scale and zero point"
                continue
            (use,) = node.outputs[0].uses()
            name = str(source.name).removesuffix("_quantized")
            if use.idx == 1:
                _weight(node, weights[name], limit)
            else:
                assert flavour == "cpu", "the bias of the tensorrt flavour is float"
                _bias(node, use.node, weights[name])
    return seen


def _activation(node: ir.Node, table: RangeTable, flavour: str) -> None:
    x, scale, zero_point = node.inputs
    assert x is not None
    low, high = table[str(x.name)].min, table[str(x.name)].max
    if flavour == "tensorrt":
        wanted, zero, dtype = max(-low, high) / 127, 0, np.int8
    else:
        low, high = min(low, 0), max(high, 0)
        wanted, dtype = (high - low) / 255, np.uint8
        zero = round(-low / wanted)
    assert array(zero_point).dtype == dtype, f"{x.name}: wrong integer type"
    assert array(zero_point) == zero, f"{x.name}: wrong zero point"
    assert np.isclose(array(scale), wanted, rtol=1e-6), f"{x.name}: wrong scale"


def _weight(node: ir.Node, weight: np.ndarray, limit: int) -> None:
    stored, scale, zero_point = (array(value) for value in node.inputs)
    assert stored.dtype == np.int8
    assert node.attributes["axis"].as_int() == 0
    assert not zero_point.any(), "weights are symmetric"
    for row, integers, step in zip(weight, stored, scale, strict=True):
        assert np.isclose(step, np.abs(row).max() / limit, rtol=1e-6), "wrong scale of a weight channel"
        assert np.array_equal(integers, np.round(row.astype(np.float64) / np.float64(step)).astype(np.int64))


def _bias(node: ir.Node, conv: ir.Node, bias: np.ndarray) -> None:
    stored, scale, zero_point = (array(value) for value in node.inputs)
    assert stored.dtype == np.int32
    assert not zero_point.any()
    x_scale, w_scale = (array(conv.inputs[i].producer().inputs[1]) for i in (0, 1))  # type: ignore[union-attr]
    assert np.allclose(scale, x_scale * w_scale, rtol=1e-6), "wrong scale of a bias"
    assert np.allclose(stored * scale.astype(np.float64), bias, atol=scale.max())
