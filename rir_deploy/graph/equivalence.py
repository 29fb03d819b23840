"""Whether a pass over a graph kept what the graph computes: the check that passes share."""

from __future__ import annotations

import time
from dataclasses import replace

import onnx_ir as ir

from rir_deploy.errors import GateError
from rir_deploy.graph.child import compare_in_child
from rir_deploy.graph.compare import DifferenceError, Equivalence, check_interface, compare_here
from rir_deploy.graph.evaluate import Graph, NotRunError

__all__ = ["DifferenceError", "Equivalence", "compare_graphs", "require_equal"]

# Integers that are mostly indices, sizes and counts.
_COUNTING = frozenset(
    {
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)


def compare_graphs(original: Graph, result: Graph, *, limit: float | None = None) -> Equivalence:
    """Run both on random inputs, as `compare_here` does; in a process of its own where running may end the process.

    Args:
        limit: the largest relative difference; None takes it from the coarsest type in the original (`LIMITS`).

    Raises:
        DifferenceError: they differ, or only the original runs.
    """
    started = time.perf_counter()
    try:
        check_interface(original, result)
        compare = compare_in_child if _may_end_process(original) else compare_here
        done = compare(original, result, limit)
    except NotRunError as reason:
        done = Equivalence(skipped=str(reason))
    return replace(done, seconds=time.perf_counter() - started)


def require_equal(original: Graph, result: Graph, action: str, way_out: str) -> Equivalence:
    """`compare_graphs`, with a difference as the error of a gate.

    Args:
        action: what made ``result``, as the subject of the message ("folding").
        way_out: what a user can do.

    Raises:
        GateError: they differ.
    """
    try:
        return compare_graphs(original, result)
    except DifferenceError as error:
        raise GateError(f"{action} would change the model: {error}; {way_out}, and report it") from error


def _may_end_process(graph: Graph) -> bool:
    """Whether the graph may divide integers that are drawn, or what comes of them: by zero, that ends a process.

    ONNX Runtime 1.32 does not survive frames of no length; older ones no division.
    """
    if all(value.dtype not in _COUNTING for value in graph.inputs):
        return False
    return any(node.op_type in ("Div", "Mod", "STFT") for node in graph.model.graph.all_nodes())
