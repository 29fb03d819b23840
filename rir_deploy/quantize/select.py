"""Which nodes are quantised: those that multiply by a constant weight, unless something speaks against it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError
from rir_deploy.graph.prepare import label
from rir_deploy.precision import KeptNode
from rir_deploy.quantize.table import RangeTable
from rir_deploy.strict_data import parse_json

# The fold writes here which tensors of the unfolded graph a node computes: [[name, first, last + 1], ...].
_MEMBERS_KEY = "rir_deploy.members"
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})


@dataclass(frozen=True)
class Weighted:
    """A node to quantise: y = x (*) weight + bias, output channels on ``axis`` of the weight."""

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    axis: int
    bias: ir.Value | None

    @property
    def weight_array(self) -> NDArray[np.float32]:
        return _array(self.weight)

    @property
    def bias_array(self) -> NDArray[np.float32] | None:
        """One number a channel, whatever shape the graph holds it in."""
        if self.bias is None:
            return None
        rows = self.weight_array.shape[self.axis]
        return np.ascontiguousarray(np.broadcast_to(_array(self.bias).ravel(), (rows,)))


@dataclass(frozen=True)
class Selection:
    """``nodes`` and ``kept`` together are all nodes of the graph that hold weights, each in graph order.

    ``asked`` are those of the kept ones that somebody asked for; the others cannot be quantised.
    """

    nodes: tuple[Weighted, ...]
    kept: Mapping[ir.Node, str]  # with the reason
    asked: tuple[KeptNode, ...]


def select(graph: ir.Graph, table: RangeTable, keep: Sequence[str], pinned: Sequence[KeptNode] = ()) -> Selection:
    """Sort the nodes with weights into those to quantise and those kept.

    Args:
        keep, pinned: see `QuantizeOptions`. They add to what the table keeps, and a node that stays for two reasons
            names that of the table, or else that of ``pinned``.

    Raises:
        InputError: nothing can be quantised, the table lacks a tensor, a pinned node is not there, or a weight is not
            finite.
        UsageError: a pattern of ``keep`` matches nothing, or ``keep`` leaves nothing.
    """
    candidates = [node for node in graph if _has_weight(node)]
    wanted = {node: f"asked for by '{pattern}'" for pattern in keep for node in _matching(candidates, pattern)}
    wanted |= _pinned(candidates, {one.node: one.reason for one in pinned} | dict(table.kept))
    nodes: list[Weighted] = []
    kept: dict[ir.Node, str] = {}
    for node in candidates:
        found = wanted.get(node) or _read(node)
        if isinstance(found, Weighted):
            found = _range_reason(found, table) or found
        if isinstance(found, Weighted):
            nodes.append(found)
        else:
            kept[node] = found
    if not nodes:
        if keep and any(isinstance(_read(node), Weighted) for node in wanted):
            raise UsageError(
                f"--keep leaves nothing to quantise: {', '.join(map(repr, keep))} match every layer that could be; "
                "keep fewer, or stay with FP32 or FP16"
            )
        listed = [f"{label(node)}: {reason}" for node, reason in kept.items()]
        reasons = "; ".join(listed[:3]) or "it has no Conv, Gemm or MatMul"
        raise InputError(f"nothing in the model can be quantised ({reasons}); keep fewer nodes or check the model")
    asked = tuple(KeptNode(label(node), reason) for node, reason in kept.items() if node in wanted)
    return Selection(tuple(nodes), kept, asked)


def _pinned(candidates: list[ir.Node], reasons: Mapping[str, str]) -> dict[ir.Node, str]:
    missing = reasons.keys() - {label(node) for node in candidates}
    if missing:
        raise InputError(f"'{min(missing)}' is to stay in float, and the model has no such layer; calibrate again")
    return {node: reasons[label(node)] for node in candidates if label(node) in reasons}


def end_layers(graph: ir.Graph) -> frozenset[ir.Node]:
    """The layers at the ends: with no other layer between them and an input of the graph, or an output.

    A network with two stems has two first layers; one that is kept in float is an end all the same.
    """
    found: set[ir.Node] = set()
    early: set[ir.Value] = set(graph.inputs)
    for node in graph:
        if early.isdisjoint(node.inputs):
            continue
        if _has_weight(node):
            found.add(node)
        else:
            early.update(node.outputs)
    late: set[ir.Value | None] = set(graph.outputs)
    for node in reversed(graph):
        if late.isdisjoint(node.outputs):
            continue
        if _has_weight(node):
            found.add(node)
        else:
            late.update(node.inputs)
    return frozenset(found)


def _has_weight(node: ir.Node) -> bool:
    return node.op_type in _WEIGHTED and node.domain in ("", "ai.onnx")


def _matching(candidates: list[ir.Node], pattern: str) -> list[ir.Node]:
    found = [node for node in candidates if any(re.search(pattern, name) for name in _names(node))]
    if not found:
        names = ", ".join(label(node) for node in candidates[:4])
        raise UsageError(f"keep '{pattern}' matches no node with weights; their names are like {names}")
    return found


def members_of(model: ir.Model, node: str) -> tuple[str, ...]:
    """The tensors of the unfolded graph that the node of that label computes."""
    found = next((one for one in model.graph if label(one) == node), None)
    return () if found is None else _members(found)


def _members(node: ir.Node) -> tuple[str, ...]:
    try:
        return tuple(str(member[0]) for member in parse_json(node.metadata_props.get(_MEMBERS_KEY, "[]")))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise InputError(
            f"the fold's record on '{label(node)}' is malformed ({error!r}); fold the model again"
        ) from error


def _names(node: ir.Node) -> list[str]:
    tensors = [value.name for value in (*node.outputs, *node.inputs[1:]) if value is not None and value.name]
    return [label(node), *tensors, *_members(node)]


def _read(node: ir.Node) -> Weighted | str:
    """The node's parts, or why it stays in float."""
    x, weight, bias = ([*node.inputs, None, None])[:3]
    if node.op_type == "ConvTranspose":
        return "transposed convolutions are not quantised"
    if x is None or weight is None or weight.const_value is None:
        return "its weight is not a constant"
    if x.const_value is not None:
        return "its input is a constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"it computes in {weight.dtype}, not FP32"
    if bias is not None and bias.const_value is None:
        return "its bias is not a constant"
    if node.op_type == "Conv":
        return _finite(Weighted(node, x, weight, 0, bias))
    if len(_array(weight).shape) != 2:
        return "its weight is not a matrix"
    if node.op_type == "MatMul":
        return _finite(Weighted(node, x, weight, 1, None))
    return _gemm(node, Weighted(node, x, weight, 0 if _integer(node, "transB") else 1, bias))


def _gemm(node: ir.Node, gemm: Weighted) -> Weighted | str:
    if _integer(node, "transA"):
        return "its input is transposed"
    factors = [node.attributes[key].as_float() for key in ("alpha", "beta") if key in node.attributes]
    if any(factor != 1.0 for factor in factors):
        return f"it multiplies by {factors[0]:g}"
    if gemm.bias is not None and _array(gemm.bias).size not in (1, gemm.weight_array.shape[gemm.axis]):
        return "its bias is not one number a channel"
    return _finite(gemm)


def _integer(node: ir.Node, key: str) -> int:
    return node.attributes[key].as_int() if key in node.attributes else 0


def _finite(found: Weighted) -> Weighted:
    for value in (found.weight, found.bias):
        if value is not None and not np.isfinite(_array(value)).all():
            raise InputError(f"the weight '{value.name}' holds NaN or infinite numbers; train or export it again")
    return found


def _range_reason(found: Weighted, table: RangeTable) -> str | None:
    if table[str(found.x.name)].max_abs == 0.0:
        return f"its input '{found.x.name}' was zero in all of the calibration"
    return None


def _array(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None
    return value.const_value.numpy()
