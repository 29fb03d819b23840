"""Blocks that were folded: convolutions of the result that do the work of several branches of what came in.

The name of a convolution is that of its output. A convolution that the fold writes carries the names of all that went
into it until they are counted; they are kept beside the node, never in the file.
"""

from __future__ import annotations

import onnx_ir as ir

_KEY = "rir_deploy.branches"


def branches_of(conv: ir.Node) -> frozenset[str]:
    """What a convolution computes: itself, or what an earlier pass of this fold noted."""
    found: frozenset[str] = conv.meta.get(_KEY, frozenset({str(conv.outputs[0].name)}))
    return found


def note_branches(conv: ir.Node, branches: frozenset[str]) -> None:
    conv.meta[_KEY] = branches


def count_blocks(graph: ir.Graph) -> int:
    """How many convolutions compute more than one branch; the notes go, since the next fold starts anew."""
    notes = [node.meta.pop(_KEY) for node in graph if _KEY in node.meta]
    return sum(len(branches) > 1 for branches in notes)
