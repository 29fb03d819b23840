"""One block of a network as a graph, before the fold and after it, to be drawn in the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from rir_deploy.export import MODULE_KEY
from rir_deploy.fold.members import read_members
from rir_deploy.pipeline.places import block_of, place_of

Record = dict[str, Any]
# A block of more nodes is no picture.
_DRAWN = 40
_INPUT, _OUTPUT = "input", "output"


def block_graphs(traced: ir.Model, folded: ir.Model) -> Record | None:
    """The block that the fold rid of the most nodes, the first of equals; None where there is none to draw.

    A node of the folded graph belongs to the blocks whose tensors it computes, by the note that the fold left on it;
    a block counts only where none of its nodes computes another's as well.

    Returns:
        ``block``, and ``before`` and ``after`` as nodes in graph order: ``name``, ``op``, ``detail`` (the shape of a
        weight), ``stream``, and ``inputs`` by name. What the block reads and gives are nodes of the ops "input" and
        "output".
    """
    before: dict[str, list[ir.Node]] = defaultdict(list)
    blocks: dict[str, str] = {}  # the block of each tensor of the traced graph
    for node in traced.graph:
        module = node.metadata_props.get(MODULE_KEY)
        if module is not None:
            before[block_of(module)].append(node)
            blocks |= {str(value.name): block_of(module) for value in node.outputs}
    after: dict[str, list[ir.Node]] = defaultdict(list)
    shared: set[str] = set()
    for node in folded.graph:
        names = [name for name, _, _ in read_members(node)] or [str(value.name) for value in node.outputs]
        found = {blocks[name] for name in names if name in blocks}
        shared |= found if len(found) > 1 else set()
        for block in found:
            after[block].append(node)
    drawn = [one for one in before if after[one] and one not in shared and len(before[one]) <= _DRAWN]
    best = max(drawn, key=lambda one: len(before[one]) - len(after[one]), default=None)
    if best is None or len(before[best]) <= len(after[best]):
        return None
    return {"block": best, "before": _nodes(before[best]), "after": _nodes(after[best])}


def _nodes(nodes: Sequence[ir.Node]) -> list[Record]:
    inside = {value: node for node in nodes for value in node.outputs}
    names = {node: str(node.name or node.outputs[0].name) for node in nodes}
    rows = [_row(node, [_source(value, inside, names) for value in _read(node)], names) for node in nodes]
    read = dict.fromkeys(value for node in nodes for value in _read(node) if value not in inside)
    given = [value for value in inside if value.is_graph_output() or any(use.node not in names for use in value.uses())]
    inputs = [_end(_INPUT, str(value.name), str(value.name), []) for value in read]
    outputs = [_end(_OUTPUT, f"{value.name} out", str(value.name), [names[inside[value]]]) for value in given]
    return [*inputs, *rows, *outputs]


def _read(node: ir.Node) -> list[ir.Value]:
    """What is computed; weights are part of the node."""
    return [value for value in node.inputs if value is not None and not _is_weight(value)]


def _is_weight(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _source(value: ir.Value, inside: dict[ir.Value, ir.Node], names: dict[ir.Node, str]) -> str:
    return names[inside[value]] if value in inside else str(value.name)


def _row(node: ir.Node, inputs: list[str], names: dict[ir.Node, str]) -> Record:
    return {
        "name": names[node],
        "op": node.op_type,
        "detail": _detail(node),
        "stream": place_of(node.outputs[0]).stream,
        "inputs": inputs,
    }


def _end(op: str, name: str, detail: str, inputs: list[str]) -> Record:
    return {"name": name, "op": op, "detail": detail, "stream": None, "inputs": inputs}


def _detail(node: ir.Node) -> str:
    """The channels in and out of a weight, its window and its stride: "16 → 32, 3×3 / 2"."""
    weight = node.inputs[1] if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 1 else None
    if weight is None or weight.shape is None:
        return ""
    sizes = [size for size in weight.shape if isinstance(size, int)]
    if node.op_type == "Gemm" or len(sizes) < 2:
        return "×".join(map(str, sizes))
    group, strides = node.attributes.get("group"), node.attributes.get("strides")
    channels = sizes[1] * (1 if group is None else group.as_int())
    step = max(strides.as_ints(), default=1) if strides is not None else 1
    return f"{channels} → {sizes[0]}, {'×'.join(map(str, sizes[2:]))}{f' / {step}' if step > 1 else ''}"
