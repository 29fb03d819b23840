"""Nodes that hold graphs of their own (If, Loop, Scan): what those read of the graph around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common


def graphs_in(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a node holds itself, not those that are nested in them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def values_read(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node, and what the graphs in it capture, at any depth."""
    values = dict.fromkeys(value for value in node.inputs if value is not None)
    for graph in graphs_in(node):
        own = set[ir.Value]()
        used: dict[ir.Value, None] = {}
        for part in (graph, *graph.subgraphs()):
            own.update(part.inputs, part.initializers.values())
        for inner in graph.all_nodes():
            own.update(inner.outputs)
            used.update((value, None) for value in inner.inputs if value is not None)
        values |= {value: None for value in used if value not in own}
    return list(values)


def names_in(graph: ir.Graph) -> set[str]:
    """Every name that the graphs inside of a graph give to a value."""
    names = set[str]()
    for sub in graph.subgraphs():
        names |= {str(value.name) for value in (*sub.inputs, *sub.initializers.values())}
        names |= {str(value.name) for node in sub for value in node.outputs}
    return names


def detach(node: ir.Node) -> None:
    """Let the graphs in a node that goes read nothing any more: to a value, their nodes are readers like others."""
    for graph in graphs_in(node):
        for inner in graph.all_nodes():
            for place in range(len(inner.inputs)):
                inner.replace_input_with(place, None)


class RemoveUnread(ir.passes.InPlacePass):
    """Remove nodes and weights that nothing reads. What only such a node captures is not read either."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        removed = _remove_unread(model.graph)
        return ir.passes.PassResult(model, common.RemoveUnusedNodesPass()(model).modified or removed > 0)


def _remove_unread(graph: ir.Graph) -> int:
    removed = 0
    for node in reversed(graph):
        if any(value.uses() or value.is_graph_output() for value in node.outputs):
            removed += sum(_remove_unread(sub) for sub in graphs_in(node))
            continue
        detach(node)
        graph.remove(node, safe=True)
        removed += 1
    return removed
