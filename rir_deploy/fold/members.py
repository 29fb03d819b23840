"""Which channels of the incoming graph the channels of a folded tensor are: a note on the node that makes it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx_ir as ir

from rir_deploy.fold.atoms import Atom

# A list of [tensor of the unfolded graph, first channel, last channel + 1].
MEMBERS_KEY = "rir_deploy.members"


def write_members(node: ir.Node, atoms: Sequence[Atom]) -> None:
    members = [[atom.origin.name, start, stop] for atom in atoms for start, stop in atom.origin_runs]
    node.metadata_props[MEMBERS_KEY] = json.dumps(members)


def read_members(node: ir.Node) -> list[tuple[str, int, int]]:
    """What the note of a folded node says: (tensor of the unfolded graph, first channel, last channel + 1)."""
    text = node.metadata_props.get(MEMBERS_KEY)
    return [] if text is None else [(str(name), int(a), int(b)) for name, a, b in json.loads(text)]
