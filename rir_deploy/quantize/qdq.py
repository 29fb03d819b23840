"""Writes Q/DQ pairs where `placement` wants them, with the scales of the range table."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.patches import as_rows
from rir_deploy.quantize.placement import Placement, range_source
from rir_deploy.quantize.scales import Affine, asymmetric_uint8, int32_bias, symmetric_int8
from rir_deploy.quantize.select import Selection, Weighted
from rir_deploy.quantize.table import Range, RangeTable
from rir_deploy.quantize.weights import RoundedWeight, check_weight, round_weight

Reader = tuple[ir.Node, int]


def activation_affine(found: Range, options: QuantizeOptions) -> Affine:
    """How a tensor of that range is rounded."""
    if options.flavour == "cpu":
        return asymmetric_uint8(found.min, found.max)
    return symmetric_int8(found.min, found.max, half=options.rest == "fp16")


def placed_affines(placement: Placement, table: RangeTable, options: QuantizeOptions) -> dict[ir.Value, Affine]:
    """How every tensor with a pair is rounded: by its own range, or by that of the pair before it (`range_source`)."""
    tensors = frozenset(placement.tensors)
    return {
        value: activation_affine(table[str(range_source(value, tensors).name)], options) for value in placement.tensors
    }


class QdqWriter:
    """Rewrites ``graph`` in place; the same graph, table and options give the same graph, names included."""

    def __init__(
        self,
        graph: ir.Graph,
        table: RangeTable,
        options: QuantizeOptions,
        rounded: Mapping[str, RoundedWeight] | None = None,
    ) -> None:
        self._graph, self._table, self._options = graph, table, options
        self._rounded = rounded or {}
        values = [value for node in graph for value in (*node.inputs, *node.outputs) if value is not None]
        self._names = {str(value.name) for value in values} | set(graph.initializers)

    def write(self, selection: Selection, placement: Placement, *, weights: bool = True) -> None:
        """Everything, or without ``weights`` the activations' pairs alone."""
        affines = placed_affines(placement, self._table, self._options)
        inputs = {found: affines[found.x] for found in selection.nodes}  # before a pair takes the tensor's place
        for value in placement.tensors:
            self._pair(value, affines[value], placement.readers(value))
        for found, affine in inputs.items() if weights else ():
            self._weights(found, affine)
        for name, initializer in list(self._graph.initializers.items()):
            if not initializer.uses() and not initializer.is_graph_output():
                del self._graph.initializers[name]

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
        """Integer weights and, for CPUs, an integer bias."""
        rounded = self._rounded.get(str(found.node.outputs[0].name))
        if rounded is None:
            rounded = round_weight(found, x, self._options)
        check_weight(found, rounded, self._options)
        bias = rounded.bias
        if bias is not None and self._options.flavour == "cpu":
            affine = int32_bias(bias, x.scale, rounded.scale)
            self._store(found, 2, affine.quantize(bias), affine)
        elif bias is not None:
            self._float_bias(found, bias)
        affine = Affine(rounded.scale, np.zeros(rounded.scale.shape, dtype=np.int8), found.axis)
        if rounded.wide is None:
            self._store(found, 1, rounded.integers, affine)
        else:
            self._dequantized(found, 1, self._narrow(found, rounded.integers, rounded.wide), affine)

    def _float_bias(self, found: Weighted, bias: NDArray[np.float32]) -> None:
        """The bias as it was, or the corrected one."""
        if found.bias_array is not None and np.array_equal(found.bias_array, bias):
            return
        value = self._initializer(f"{found.node.outputs[0].name}_bias", bias)
        if len(found.node.inputs) < 3:
            found.node.resize_inputs(3)
        found.node.replace_input_with(2, value)

    def _store(self, found: Weighted, index: int, integers: NDArray[np.integer], affine: Affine) -> None:
        """Put integers behind a DequantizeLinear in the place of the node's input ``index``."""
        self._dequantized(found, index, self._initializer(f"{self._input(found, index)}_quantized", integers), affine)

    def _dequantized(self, found: Weighted, index: int, integers: ir.Value, affine: Affine) -> None:
        name = self._input(found, index)
        axis = [ir.AttrInt64("axis", affine.axis)] if affine.axis is not None else []
        dequantize = self._dequantize(name, [integers, *self._parameters(name, affine)], axis)
        self._graph.insert_before(found.node, dequantize)
        if len(found.node.inputs) <= index:
            found.node.resize_inputs(index + 1)
        found.node.replace_input_with(index, dequantize.outputs[0])

    def _input(self, found: Weighted, index: int) -> str:
        """The name of a node's weight or bias, or the one a bias would have."""
        value = found.node.inputs[index] if index < len(found.node.inputs) else None
        return f"{found.node.outputs[0].name}_bias" if value is None else str(value.name)

    def _narrow(self, found: Weighted, integers: NDArray[np.int8], wide: NDArray[np.int64]) -> ir.Value:
        """An INT4 weight with one INT8 column a row. Runtimes put the two together when they load the graph."""
        name = self._input(found, 1)
        rows = as_rows(found, integers).astype(np.int8)
        index = np.arange(len(rows))
        taps = rows[index, wide][:, None]
        rows[index, wide] = 0
        narrow = self._initializer(f"{name}_int4", rows.astype(ml_dtypes.int4))
        parts = [
            self._initializer(f"{name}_wide_column", wide[:, None].astype(np.int32)),
            self._initializer(f"{name}_wide", taps),
        ]
        sizes = found.weight_array.shape
        shape = self._initializer(f"{name}_shape", np.array(sizes, dtype=np.int64))
        to, axis = ir.AttrInt64("to", ir.DataType.INT8), ir.AttrInt64("axis", 1)
        cast = self._operator("Cast", [narrow], f"{name}_int8", rows.shape, to)
        filled = self._operator("ScatterElements", [cast, *parts], f"{name}_filled", rows.shape, axis)
        steps = [cast, filled]
        if found.axis == 1:
            steps.append(self._operator("Transpose", [filled], f"{name}_transposed", rows.shape[::-1]))
        steps.append(self._operator("Reshape", [steps[-1], shape], f"{name}_quantized", sizes))
        self._graph.insert_before(found.node, [node for value in steps if (node := value.producer()) is not None])
        return steps[-1]

    def _operator(
        self, op_type: str, inputs: list[ir.Value], name: str, shape: tuple[int, ...], *attributes: ir.Attr
    ) -> ir.Value:
        output = self._value(name, ir.DataType.INT8, ir.Shape(shape))
        return ir.Node("", op_type, inputs, attributes, outputs=[output], name=f"{output.name}/{op_type}").outputs[0]

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
        value.const_value = ir.Tensor(array, name=value.name)
        self._graph.register_initializer(value)
        return value

    def _value(self, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> ir.Value:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return ir.Value(name=candidate, type=ir.TensorType(dtype), shape=None if shape is None else shape.copy())
