"""A graph in the form that passes over all its nodes take, and how messages name a node."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

# Functions become plain nodes, constants become weights, weights cannot be replaced at run time, types become known.
PREPARE: tuple[Callable[[], ir.passes.PassBase], ...] = (
    common.InlinePass,
    lambda: common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.RemoveInitializersFromInputsPass,
    common.ShapeInferencePass,
)


def prepare(model: ir.Model) -> ir.Model:
    """A copy of the model with all its work in the nodes of one graph, and every type known."""
    prepared = model.clone()
    for make in PREPARE:
        prepared = make()(prepared).model
    return prepared


def label(node: ir.Node) -> str:
    """The name of a node, or the operator and tensor that say which it is."""
    return node.name or f"{node.op_type}({', '.join(str(value.name) for value in node.outputs)})"
