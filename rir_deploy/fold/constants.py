"""Values that do not depend on the graph's inputs, evaluated on demand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from rir_deploy.fold.evaluate import evaluate_constant


class Constants:
    """Constant values of one graph as numpy arrays, each computed once.

    ``from_shapes``: sizes that shape inference has found are constants too.
    """

    def __init__(self, opset: int, from_shapes: bool = False) -> None:
        self._opset, self._from_shapes = opset, from_shapes
        self._known: dict[ir.Value, NDArray[np.generic] | None] = {}

    def get(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """The array that ``value`` always holds, or None where it depends on an input or cannot be computed."""
        if value is None:
            return None
        pending = [] if _is_stored(value) else [value]
        while pending:  # iterative, since chains of constant nodes can be long
            top = pending[-1]
            missing = [] if top in self._known else self._operands(top)
            if missing:
                pending.extend(missing)
            else:
                pending.pop()
                if top not in self._known:
                    self._known[top] = self._compute(top)
        return self._look_up(value)

    def _look_up(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """What is known by now. Weights are read anew every time: kept here, all of them would be there twice."""
        if value is not None and _is_stored(value) and value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        return None if value is None else self._known.get(value)

    def _operands(self, value: ir.Value) -> list[ir.Value]:
        """Operands that have to be computed first."""
        node = value.producer()
        if node is None or self._has_sizes(node):
            return []
        operands = [operand for operand in node.inputs if operand is not None]
        # One graph input among the operands settles it: there is no need to look at the rest.
        if any(operand.is_graph_input() for operand in operands):
            return []
        return [operand for operand in operands if operand not in self._known and not _is_stored(operand)]

    def _compute(self, value: ir.Value) -> NDArray[np.generic] | None:
        node = value.producer()
        if value.is_graph_input() or node is None or node.domain not in ("", "ai.onnx"):
            return None
        if len(node.outputs) != 1:
            return None
        if node.op_type == "Shape" and self._from_shapes:
            sizes = _sizes(node, None if self._has_sizes(node) else self._look_up(node.inputs[0]))
            return None if sizes is None or None in sizes else np.array(sizes, dtype=np.int64)
        if (size := self._one_size(node)) is not None:
            return size
        operands = [operand for operand in node.inputs if operand is not None]
        if not operands or any(not _is_stored(o) and self._known.get(o) is None for o in operands):
            return None
        arrays = [self._look_up(operand) for operand in node.inputs]
        return evaluate_constant(node, arrays, self._opset)

    def _has_sizes(self, node: ir.Node) -> bool:
        """Whether it is a Shape whose result is known without a look at what it measures."""
        return node.op_type == "Shape" and self._from_shapes and None not in (_sizes(node, None) or [None])

    def _one_size(self, node: ir.Node) -> NDArray[np.generic] | None:
        """Sizes gathered from a shape of which the rest, such as the batch, may be unknown."""
        shape = node.inputs[0].producer() if node.op_type == "Gather" and node.inputs[0] is not None else None
        places = self._look_up(node.inputs[1]) if shape is not None else None
        if shape is None or shape.op_type != "Shape" or places is None or not self._from_shapes:
            return None
        sizes = _sizes(shape, None)
        chosen = [None] if sizes is None else [sizes[int(place)] for place in places.reshape(-1)]
        return None if None in chosen else np.array(chosen, dtype=np.int64).reshape(places.shape)


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _sizes(node: ir.Node, measured: NDArray[np.generic] | None) -> list[int | None] | None:
    """The sizes that a Shape node returns, with None for those that are not known; None where not even the rank is."""
    shape: Iterable[object] | None = node.inputs[0].shape if node.inputs[0] is not None else None
    shape = shape if measured is None else measured.shape
    if shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in shape]
    first = node.attributes.get_int("start", 0)
    last = node.attributes.get_int("end", len(sizes))
    return sizes[first:last]


def _is_worth_storing(array: NDArray[np.generic], node: ir.Node) -> bool:
    """Integers, since shapes hang on them; floats only where they take no more room than what they replace.

    Infinity and NaN are left to be computed: stored, they would be weights.
    """
    if array.dtype.kind != "f":
        return True
    own = [
        value.const_value.nbytes
        for value in node.inputs
        if value is not None and value.const_value is not None and len(value.uses()) == 1
    ]
    return bool(np.isfinite(array).all()) and (array.size == 1 or array.nbytes <= sum(own))


class EvaluateConstants(ir.passes.InPlacePass):
    """Turn every value that does not depend on an input into a weight, so that shapes can be inferred through it.

    ``from_shapes``: as for `Constants`.
    """

    def __init__(self, from_shapes: bool = False) -> None:
        super().__init__()
        self._from_shapes = from_shapes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
        graph = model.graph
        constants = Constants(graph.opset_imports.get("", 0), self._from_shapes)
        for node in graph:
            output = node.outputs[0]
            array = constants.get(output) if len(node.outputs) == 1 and not output.is_graph_output() else None
            if array is None or output.name is None or not _is_worth_storing(array, node):
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
