"""FP32 graph to FP16 graph, strongly typed: the types written in the graph are what every builder computes in.

1. A node computes in FP16: its weights are rounded, its tensors are FP16.
2. A node that FP16 would break stays FP32, between Casts, and is listed with the reason: a weight or a tensor leaves
   FP16's range, ONNX defines no FP16 form of the operator, or it computes sizes, indices or counts (`graph.sizes`).
3. A Cast to FP32 becomes a Cast to FP16, so a graph that takes uint8 images needs no FP32 at all.
4. Inputs and outputs keep their types: a Cast stands at each border.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.graph.prepare import label, prepare
from rir_deploy.graph.sizes import exact_nodes

HALF_MAX = 65504.0
# Rounding to FP16's normal range errs by at most 2**-11; more means that numbers overflowed or fell under the range.
_MAX_RELATIVE_ERROR = 2.0**-10
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class KeptNode:
    """A node that stays in a wider type than was asked for, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Fp16Result:
    """``model`` is a new model; ``kept`` lists the nodes that stay FP32, in graph order."""

    model: ir.Model
    kept: tuple[KeptNode, ...]


def to_fp16(model: ir.Model, *, ranges: Mapping[str, float] | None = None) -> Fp16Result:
    """Cast an FP32 graph to FP16.

    Args:
        model: any ONNX model without control flow, Q/DQ nodes included; it is not changed.
        ranges: largest absolute value of tensors by name, from calibration; None checks weights only.

    Raises:
        InputError: the graph has control flow, nothing in it is FP32, or a range is not a number.
    """
    for name, largest in (ranges or {}).items():
        if not largest >= 0:
            raise InputError(f"the range of '{name}' is {largest}, not a largest absolute value; calibrate again")
    cast = prepare(model)
    graph = cast.graph
    for node in graph:
        if any(attribute.type in _SUBGRAPHS for attribute in node.attributes.values()):
            raise InputError(f"'{label(node)}' is control flow, which has no FP16 form here; export a graph without it")
    computing = [node for node in graph if node.op_type != "Cast"]
    if not any(value.dtype == _FLOAT for node in computing for value in (*node.inputs, *node.outputs) if value):
        raise InputError("nothing in the model computes in FP32: it is cast already; start from the FP32 model")
    reasons = _reasons(graph, graph.opset_imports.get("", 0), ranges or {})
    _Casting(graph, {node for node in graph if node not in reasons}).rewrite()
    return Fp16Result(cast, tuple(KeptNode(label(node), reason) for node, reason in reasons.items()))


def _reasons(graph: ir.Graph, opset: int, ranges: Mapping[str, float]) -> dict[ir.Node, str]:
    exact = exact_nodes(graph)
    found = {
        node: _type_reason(node, opset) or exact.get(node) or _weight_reason(node) or _activation_reason(node, ranges)
        for node in graph
    }
    reasons = {node: reason for node, reason in found.items() if reason is not None}
    for node in graph:  # a scale outside the fused integer kernel would make it a float one
        readers = [usage.node for usage in node.outputs[0].uses()]
        if node.op_type == "DequantizeLinear" and readers and all(reader in reasons for reader in readers):
            reasons.setdefault(node, "all its readers stay FP32")
    return {node: reasons[node] for node in graph if node in reasons}


def _type_reason(node: ir.Node, opset: int) -> str | None:
    """Whether ONNX lets this node compute in FP16."""
    inputs = [i for i, value in enumerate(node.inputs) if value is not None and value.dtype == _FLOAT]
    outputs = [i for i, value in enumerate(node.outputs) if value.dtype == _FLOAT]
    if node.domain not in ("", "ai.onnx"):
        return f"{node.domain}.{node.op_type} is not an ONNX operator" if inputs or outputs else None
    allowed = all(admits_half(node, "out", i, opset) for i in outputs)
    if not allowed or (inputs and not admits_half(node, "in", inputs[0], opset)):
        return f"ONNX opset {opset} defines no FP16 {node.op_type}"
    if outputs and not inputs and node.op_type != "Cast":
        return "the node itself sets its output type"
    return None


def admits_half(node: ir.Node, side: str, index: int, opset: int) -> bool:
    """Whether the operator's schema lets input or output ``index`` be FP16."""
    try:
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=node.version or opset)
    except onnx.defs.SchemaError:
        return False
    parameters = schema.inputs if side == "in" else schema.outputs
    return "tensor(float16)" in parameters[min(index, len(parameters) - 1)].types  # the last may be variadic


def _weight_reason(node: ir.Node) -> str | None:
    for value in node.inputs if node.op_type != "Clip" else ():  # a bound may well be infinite
        if value is None or value.const_value is None or value.dtype != _FLOAT:
            continue
        array = value.const_value.numpy().astype(np.float64)
        array = array[np.isfinite(array)]
        error = float(np.linalg.norm(_to_half(array).astype(np.float64) - array))
        if error > _MAX_RELATIVE_ERROR * float(np.linalg.norm(array)):
            largest = float(np.abs(array).max())
            limit = f"over FP16's {HALF_MAX:.0f}" if largest > HALF_MAX else "below FP16's normal range"
            return f"its weight '{value.name}' reaches {largest:.4g}, {limit}"
    return None


def _activation_reason(node: ir.Node, ranges: Mapping[str, float]) -> str | None:
    tensors = [("output", value) for value in node.outputs] + [("input", value) for value in node.inputs if value]
    for role, value in tensors:
        largest = ranges.get(str(_measured(value).name), 0.0)
        if value.dtype == _FLOAT and largest > HALF_MAX:
            return f"its {role} '{value.name}' reaches {largest:.4g}, over FP16's {HALF_MAX:.0f}"
    return None


def _measured(value: ir.Value) -> ir.Value:
    """The tensor whose range tells about ``value``: what comes out of a Q/DQ pair ranges like what went in."""
    for op_type in ("DequantizeLinear", "QuantizeLinear"):
        node = value.producer()
        if node is None or node.op_type != op_type or node.inputs[0] is None:
            return value
        value = node.inputs[0]
    return value


def _to_half(array: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(np.float16)


class _Casting:
    """Gives every FP32 tensor the type that its producer computes in, and casts it for readers of the other."""

    def __init__(self, graph: ir.Graph, half: set[ir.Node]) -> None:
        self._graph, self._half, self._opset = graph, half, graph.opset_imports.get("", 0)
        values = {value for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
        self._float = {value for value in values if value.dtype == _FLOAT}
        self._names = {str(value.name) for value in values}
        self._versions: dict[ir.Value, ir.Value] = {}

    def rewrite(self) -> None:
        outputs = [value for value in self._graph.outputs if value in self._float]
        nodes = list(self._graph)
        for node in nodes:
            if node in self._half:
                self._retype(node)
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value in self._float and value is not None:
                    node.replace_input_with(index, self._as(value, self._wanted(node, index)))
        for value in outputs:
            if value.dtype == _HALF:
                self._restore_output(value)
        self._drop_unread()

    def _drop_unread(self) -> None:
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[name]
                if value in self._versions:
                    self._versions[value].name = name

    def _retype(self, node: ir.Node) -> None:
        for value in node.outputs:
            if value in self._float:
                value.type = ir.TensorType(_HALF)  # a new one: clones of a model share their types
                if node.op_type == "Cast":
                    node.attributes["to"] = ir.AttrInt64("to", int(_HALF))

    def _wanted(self, node: ir.Node, index: int) -> ir.DataType:
        return _HALF if node in self._half and admits_half(node, "in", index, self._opset) else _FLOAT

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` in the type ``dtype``: itself, a rounded weight, or the one Cast that all its readers share."""
        if value.dtype == dtype:
            return value
        if value not in self._versions:
            weight = value.const_value
            self._versions[value] = self._cast(value, dtype) if weight is None else self._rounded(value, weight)
        return self._versions[value]

    def _rounded(self, value: ir.Value, weight: ir.TensorProtocol) -> ir.Value:
        name = self._unique(f"{value.name}_fp16")
        tensor = ir.tensor(_to_half(weight.numpy()), name=name)
        half = ir.Value(name=name, shape=value.shape, type=ir.TensorType(_HALF), const_value=tensor)
        self._graph.register_initializer(half)
        return half

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = self._unique(f"{value.name}_{'fp16' if dtype == _HALF else 'fp32'}")
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        attribute = ir.AttrInt64("to", int(dtype))
        cast = ir.Node("", "Cast", [value], [attribute], outputs=[output], name=self._unique(f"{name}/Cast"))
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return output

    def _restore_output(self, value: ir.Value) -> None:
        """The graph's output keeps its name and its FP32; what computed it gives an FP16 tensor beside it."""
        name = str(value.name)
        value.name = self._unique(f"{name}_fp16")
        output = self._as(value, _FLOAT)
        output.name = name
        for index, other in enumerate(self._graph.outputs):
            if other is value:
                self._graph.outputs[index] = output

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate
