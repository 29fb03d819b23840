"""Writes Q/DQ pairs where `placement` wants them, with the scales of the range table."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.placement import Placement, range_source
from rir_deploy.quantize.scales import (
    Affine,
    asymmetric_uint8,
    int32_bias,
    scales_for_bias,
    symmetric_int8,
    weight_scales,
)
from rir_deploy.quantize.select import Selection, Weighted
from rir_deploy.quantize.table import RangeTable

Reader = tuple[ir.Node, int]


class QdqWriter:
    """Rewrites ``graph`` in place; the same graph, table and options give the same graph, names included."""

    def __init__(self, graph: ir.Graph, table: RangeTable, options: QuantizeOptions) -> None:
        self._graph, self._table, self._options = graph, table, options
        self._half = options.rest == "fp16"
        values = [value for node in graph for value in (*node.inputs, *node.outputs) if value is not None]
        self._names = {str(value.name) for value in values} | set(graph.initializers)

    def write(self, selection: Selection, placement: Placement) -> None:
        tensors = frozenset(placement.tensors)
        affines = {value: self._activation(range_source(value, tensors)) for value in placement.tensors}
        inputs = {found: affines[found.x] for found in selection.nodes}  # before a pair takes the tensor's place
        for value in placement.tensors:
            self._pair(value, affines[value], placement.readers(value))
        for found, affine in inputs.items():
            self._weights(found, affine)
        for name, initializer in list(self._graph.initializers.items()):
            if not initializer.uses() and not initializer.is_graph_output():
                del self._graph.initializers[name]

    def _activation(self, value: ir.Value) -> Affine:
        found = self._table[str(value.name)]
        if self._options.flavour == "cpu":
            return asymmetric_uint8(found.min, found.max)
        return symmetric_int8(found.min, found.max, half=self._half)

    def _pair(self, value: ir.Value, affine: Affine, readers: list[Reader]) -> None:
        name = str(value.name)
        parameters = self._parameters(name, affine)
        quantized = self._value(f"{name}_quantized", ir.DataType.from_numpy(affine.zero_point.dtype), value.shape)
        inputs = [value, *parameters]
        quantize = ir.Node("", "QuantizeLinear", inputs, outputs=[quantized], name=f"{quantized.name}/QuantizeLinear")
        dequantize = self._dequantize(name, [quantized, *parameters], [])
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], [quantize, dequantize])
        else:
            self._graph.insert_after(producer, [quantize, dequantize])
        for node, index in readers:
            node.replace_input_with(index, dequantize.outputs[0])

    def _weights(self, found: Weighted, x: Affine) -> None:
        """Integer weights and, for CPUs, an integer bias; the scales of both are settled before either is stored."""
        weight, bias = found.weight_array, found.bias_array
        scale = weight_scales(weight, found.axis, self._options.weight_limit, half=self._half)
        if bias is not None and self._options.flavour == "cpu":
            scale = scales_for_bias(scale, bias, x.scale)
            affine = int32_bias(bias, x.scale, scale)
            self._store(found, 2, affine.quantize(bias), affine)
        affine = Affine(scale, np.zeros(scale.shape, dtype=np.int8), found.axis)
        self._store(found, 1, affine.quantize(weight), affine)

    def _store(self, found: Weighted, index: int, integers: NDArray[np.integer], affine: Affine) -> None:
        """Put integers behind a DequantizeLinear in the place of the node's input ``index``."""
        value = found.node.inputs[index]
        name = str(value.name) if value is not None else ""
        stored = self._initializer(f"{name}_quantized", integers)
        axis = [ir.AttrInt64("axis", affine.axis)] if affine.axis is not None else []
        dequantize = self._dequantize(name, [stored, *self._parameters(name, affine)], axis)
        self._graph.insert_before(found.node, dequantize)
        found.node.replace_input_with(index, dequantize.outputs[0])

    def _dequantize(self, name: str, inputs: list[ir.Value], attributes: list[ir.Attr]) -> ir.Node:
        output = self._value(f"{name}_dequantized", ir.DataType.FLOAT, inputs[0].shape)
        node_name = f"{output.name}/DequantizeLinear"
        return ir.Node("", "DequantizeLinear", inputs, attributes, outputs=[output], name=node_name)

    def _parameters(self, name: str, affine: Affine) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point. The zero point is written out even where it is 0: without one, ONNX means uint8."""
        scale = self._initializer(f"{name}_scale", affine.scale)
        return scale, self._initializer(f"{name}_zero_point", affine.zero_point)

    def _initializer(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        value = self._value(name, ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape))
        value.const_value = ir.tensor(array, name=value.name)
        self._graph.register_initializer(value)
        return value

    def _value(self, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return ir.Value(name=candidate, type=ir.TensorType(dtype), shape=None if shape is None else shape.copy())
