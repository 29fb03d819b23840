"""Which channels of the incoming graph the channels of a folded tensor are: a note on the node that makes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile

import onnx_ir as ir

from rir_deploy.errors import InputError
from rir_deploy.fold.atoms import Atom
from rir_deploy.strict_data import parse_json

# A list of [tensor of the unfolded graph, first channel, last channel + 1].
MEMBERS_KEY = "rir_deploy.members"
# The module that the tracer noted on a node; a folded node is of the innermost one that holds all its members.
MODULE_KEY = "rir_deploy.module"


def write_members(node: ir.Node, atoms: Sequence[Atom]) -> None:
    members = [part for atom in atoms for run in atom.origin_runs for part in _origins(atom.origin, *run)]
    node.metadata_props[MEMBERS_KEY] = json.dumps(members)
    module = _common_module([atom.origin.producer() for atom in atoms])
    if module:
        node.metadata_props[MODULE_KEY] = module


def _common_module(nodes: Sequence[ir.Node | None]) -> str:
    paths = [[] if node is None else node.metadata_props.get(MODULE_KEY, "").split(".") for node in nodes]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return ".".join(names[0] for names in shared)


def _origins(value: ir.Value, start: int, stop: int) -> list[tuple[str | None, int, int]]:
    """Channels start:stop of a tensor; where an earlier fold made it, what that fold made them of."""
    node, at = value.producer(), 0
    found: list[tuple[str | None, int, int]] = []
    for name, first, last in [] if node is None else read_members(node):
        low, high = max(start - at, 0), min(stop - at, last - first)
        if low < high:
            found.append((name, first + low, first + high))
        at += last - first
    return found or [(value.name, start, stop)]


def read_members(node: ir.Node) -> list[tuple[str, int, int]]:
    """What the note of a folded node says: (tensor of the unfolded graph, first channel, last channel + 1).

    Raises:
        InputError: the note is malformed.
    """
    text = node.metadata_props.get(MEMBERS_KEY)
    try:
        return [] if text is None else [(str(name), int(a), int(b)) for name, a, b in parse_json(text)]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"the fold's record on '{node.name}' is malformed ({error!r}); fold the model again"
        ) from error
