"""The graph that calibration runs: the same one, with the tensors to observe among its outputs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from rir_deploy.errors import unknown_name
from rir_deploy.graph.prepare import prepare
from rir_deploy.graph.weights import with_infinities


def activation_names(model: ir.Model) -> tuple[str, ...]:
    """Every FP32 tensor that the nodes of the graph compute, in graph order: what a range table should know.

    Tensors that hold infinities by design, such as one padded for a maximum, have no range.

    The table then serves both flavours of Q/DQ, and tells where FP16 overflows. The input of the graph is not among
    them: its range is read off the batches.
    """
    graph = prepare(model).graph
    unbounded = with_infinities(graph)
    values = [value for node in graph for value in node.outputs if value not in unbounded]
    return tuple(str(value.name) for value in values if value.name and value.dtype == ir.DataType.FLOAT)


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
