"""Names for sizes that have none, for the time of the fold.

Two sizes without a name are not known to be equal, and a sum of two tensors may broadcast one of them. With a name of
its own for each of an input's sizes, shape inference says which of the sizes that follow are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

import onnx_ir as ir

_PREFIX = "rir_deploy.size."
# What onnx's shape inference calls the sizes that it does not know: files keep such names.
_INFERRED = "unk__"


class NameSizes(ir.passes.InPlacePass):
    """Give every size of the graph's inputs that has neither a number nor a name a name of its own."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for value in model.graph.inputs:
            sizes = list(value.shape or ())
            named = [_named(size, f"{_PREFIX}{value.name}.{axis}") for axis, size in enumerate(sizes)]
            if named != sizes:
                value.shape = ir.Shape(named)
                modified = True
        if modified:  # the names that follow are better than those of an inference without them
            _forget(model.graph, _INFERRED, keep=set(model.graph.outputs))
        return ir.passes.PassResult(model, modified)


def _named(size: int | ir.SymbolicDim, name: str) -> int | ir.SymbolicDim:
    unknown = size < 0 if isinstance(size, int) else not size.value  # some exporters write -1
    return ir.SymbolicDim(name) if unknown else size


def forget_names(graph: ir.Graph) -> None:
    """Take the names of `NameSizes` out again."""
    _forget(graph, _PREFIX)


def _forget(graph: ir.Graph, prefix: str, keep: Collection[ir.Value] = ()) -> None:
    values = itertools.chain(graph.inputs, (value for node in graph.all_nodes() for value in node.outputs))
    for value in (value for value in values if value not in keep):
        sizes = list(value.shape or ())
        kept = [None if str(getattr(size, "value", "")).startswith(prefix) else size for size in sizes]
        if kept != sizes:
            value.shape = ir.Shape(kept)
