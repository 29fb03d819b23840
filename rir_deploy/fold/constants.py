"""Values that do not depend on the graph's inputs, evaluated on demand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import LiftConstantsToInitializersPass

# Exporters build weights (W + I) and pad amounts out of constants; larger results are not worth having.
_MAX_ELEMENTS = 1 << 28
_IMPURE = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
# A weight that is stored in integers and scaled at run time is a quantised weight: not ours to fold.
_OPAQUE = _IMPURE | {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan"}


class Constants:
    """Constant values of one graph as numpy arrays, each computed once."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._known: dict[ir.Value, NDArray[np.generic] | None] = {}

    def get(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The array that ``value`` always holds, or None where it depends on an input or cannot be computed."""
        if value is None:
            return None
        pending = [value]
        while pending:  # iterative, since chains of constant nodes can be long
            top = pending[-1]
            missing = [] if top in self._known else self._operands(top)
            if missing:
                pending.extend(missing)
            else:
                pending.pop()
                if top not in self._known:
                    self._known[top] = self._compute(top)
        return self._known[value]

    def _operands(self, value: ir.Value) -> list[ir.Value]:
        node = value.producer()
        if node is None or node.op_type in _OPAQUE:
            return []
        inputs = [operand for operand in node.inputs if operand is not None and operand not in self._known]
        # One graph input among the operands settles it: there is no need to look at the rest.
        return [] if any(operand.is_graph_input() for operand in node.inputs if operand is not None) else inputs

    def _compute(self, value: ir.Value) -> NDArray[np.generic] | None:
        if value.is_graph_input():
            return None
        if value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type in _OPAQUE or len(node.outputs) != 1:
            return None
        arrays = [None if operand is None else self._known.get(operand) for operand in node.inputs]
        missing = any(a is None and operand is not None for a, operand in zip(arrays, node.inputs, strict=True))
        if missing or not arrays or sum(a.size for a in arrays if a is not None) > _MAX_ELEMENTS:
            return None
        return _evaluate(node, arrays, self._opset)


def _evaluate(node: ir.Node, arrays: list[NDArray[np.generic] | None], opset: int) -> NDArray[np.generic] | None:
    """Run one node in onnx's reference evaluator."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(arrays)]
    proto = ir.to_proto(node)
    single = onnx.NodeProto(op_type=proto.op_type, input=names, output=["y"], attribute=proto.attribute)
    inputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names if name]
    output = onnx.helper.make_value_info("y", onnx.TypeProto())
    graph = onnx.helper.make_graph([single], "constant", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feed = {name: array for name, array in zip(names, arrays, strict=True) if name}
    try:
        (result,) = ReferenceEvaluator(model).run(None, feed)
    except Exception:  # the evaluator raises whatever its operators do; then the value is simply not known
        return None
    return result if isinstance(result, np.ndarray) and result.size <= _MAX_ELEMENTS else None


class EvaluateConstants(ir.passes.InPlacePass):
    """Turn every value that does not depend on an input into a weight, so that shapes can be inferred through it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
        graph = model.graph
        constants = Constants(graph.opset_imports.get("", 0))
        for node in graph:
            output = node.outputs[0]
            array = constants.get(output) if len(node.outputs) == 1 and not output.is_graph_output() else None
            if array is None or output.name is None:
                continue
            weight = ir.Value(
                name=output.name,
                shape=ir.Shape(array.shape),
                type=output.type or ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.tensor(array, name=output.name),
            )
            output.replace_all_uses_with(weight)
            output.name = None
            graph.remove(node, safe=True)
            graph.register_initializer(weight)
            modified = True
        return ir.passes.PassResult(model, modified)
