"""The graph that calibration runs: the same one, with the tensors to observe among its outputs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from rir_deploy.errors import unknown_name
from rir_deploy.graph.prepare import prepare
from rir_deploy.graph.weights import with_infinities


def activation_names(model: ir.Model) -> tuple[str, ...]:
    """Every FP32 tensor that the nodes of the graph compute, in graph order: what a range table should know.

    The table then serves both flavours of Q/DQ, and tells where FP16 overflows. The input of the graph is not among
    them: its range is read off the batches.
    """
    values = [value for node in prepare(model).graph for value in node.outputs]
    return tuple(str(value.name) for value in values if value.name and value.dtype == ir.DataType.FLOAT)


def unbounded_names(model: ir.Model) -> frozenset[str]:
    """The tensors that may hold infinities by design, such as one padded for a maximum: they range without them."""
    return frozenset(str(value.name) for value in with_infinities(prepare(model).graph))


def mark_outputs(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of the model whose outputs are its own and, after them, the tensors ``names``.

    Raises:
        UsageError: no node computes a tensor of that name.
    """
    marked = prepare(model)
    graph = marked.graph
    values = {str(value.name): value for node in graph for value in node.outputs}
    for name in dict.fromkeys(names):
        if name not in values:
            raise unknown_name("tensor", name, values)
        if not values[name].is_graph_output():
            graph.outputs.append(values[name])
    return marked
