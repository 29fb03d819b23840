"""The feature maps of a graph, and which channels of which original tensors each of them holds.

A folded node notes that in its metadata (`rir_deploy.fold.members`); any other tensor is its own original. So the
maps of two graphs of one model can be told to be the same, whatever the number of their nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.export import MODULE_KEY
from rir_deploy.fold.members import read_members
from rir_deploy.graph.prepare import label
from rir_deploy.strict_data import parse_json

# A note of the quantiser on a node: a list of integers e, one a channel; its tensor holds 2**e times the original.
EQUALIZED_KEY = "rir_deploy.equalized"
# What stands for the input of the first layer and for the output, which graphs may name as they like.
INPUT, OUTPUT = "<input>", "<output>"
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})
_PAIRS = {"QuantizeLinear": "DequantizeLinear", "Cast": "Cast"}

# A name and its channels first:last.
Run = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A tensor [n, channels, ...] of a graph.

    Attributes:
        value: as its node computes it.
        stored: as it is kept and read: behind its Q/DQ pair or its pair of Casts, or ``value`` itself.
        rounding: the first node of that pair.
        runs: the channels of original tensors that it holds, in order.
        exponents: [channels] it holds 2**e times what the original does; None for all zero.
        key: of a traced node: its module, op, and place among equals. It survives renaming.
    """

    value: ir.Value
    stored: ir.Value
    rounding: ir.Node | None
    runs: tuple[Run, ...]
    exponents: NDArray[np.int64] | None
    key: tuple[str, str, int] | None

    @property
    def name(self) -> str:
        return str(self.stored.name)

    @property
    def rounding_op(self) -> str | None:
        return None if self.rounding is None else self.rounding.op_type

    @property
    def node(self) -> str:
        producer = self.value.producer()
        return f"input {self.value.name}" if producer is None else label(producer)

    @property
    def op(self) -> str:
        producer = self.value.producer()
        return "input" if producer is None else producer.op_type

    def scale(self, array: NDArray[np.floating], sign: int) -> NDArray[np.floating]:
        """``array`` times 2**(sign e), channel by channel."""
        if self.exponents is None:
            return array
        return np.asarray(np.ldexp(array, sign * self.exponents.reshape((1, -1) + (1,) * (array.ndim - 2))))


def find_feature_maps(model: ir.Model) -> list[FeatureMap]:
    """In graph order, the last one the output.

    Of a convolution, the sum and the relu behind it, all with one note, the last is meant: it alone holds the tensor
    that was there before the fold. ``model`` has been prepared: its types and shapes are known.
    """
    graph = model.graph
    found: list[FeatureMap] = []
    exponents: dict[object, NDArray[np.int64]] = {}
    first, output = network_input(graph), graph.outputs[0]
    keys = _keys(graph)
    for value in _computed(graph):
        channels, node = _channels(value), value.producer()
        if channels is None or (_is_rounding(node) and value is not first and value is not output):
            continue
        runs = _runs(value, channels, first, output)
        noted = _exponents(node, channels)
        if noted is not None:
            exponents[runs] = noted
        stored, rounding = _stored(value)
        found.append(FeatureMap(value, stored, rounding, runs, exponents.get(runs), keys.get(node)))
    return sorted(_meant(found), key=lambda one: one.value is output)


def _meant(maps: list[FeatureMap]) -> list[FeatureMap]:
    """Those that hold a channel which no later one holds."""
    kept: list[FeatureMap] = []
    later: set[tuple[str, int]] = set()
    for one in reversed(maps):
        channels = {(name, channel) for name, first, last in one.runs for channel in range(first, last)}
        if not channels <= later:
            kept.append(one)
            later |= channels
    return kept[::-1]


def network_input(graph: ir.Graph) -> ir.Value:
    """What the first layer with weights reads: the images, preprocessed."""
    derived = set(_computed(graph))
    for node in graph:
        if node.op_type in _WEIGHTED and node.inputs[0] in derived:
            return _unrounded(node.inputs[0])
    return graph.inputs[0]


def _keys(graph: ir.Graph) -> dict[ir.Node | None, tuple[str, str, int]]:
    seen: Counter[tuple[str, str]] = Counter()
    keys: dict[ir.Node | None, tuple[str, str, int]] = {}
    for node in graph:
        module = node.metadata_props.get(MODULE_KEY)
        if module is not None and not read_members(node):
            keys[node] = (module, node.op_type, seen[module, node.op_type])
            seen[module, node.op_type] += 1
    return keys


def _computed(graph: ir.Graph) -> Iterator[ir.Value]:
    """The inputs, and all values that depend on them."""
    derived: set[ir.Value | None] = set(graph.inputs)
    yield from graph.inputs
    for node in graph:
        if any(value in derived for value in node.inputs):
            derived.update(node.outputs)
            yield from node.outputs


def _channels(value: ir.Value) -> int | None:
    """The second dimension of a float tensor that has one."""
    if value.dtype != ir.DataType.FLOAT or value.shape is None or len(value.shape) < 2:
        return None
    return value.shape[1] if isinstance(value.shape[1], int) else None


def _runs(value: ir.Value, channels: int, first: ir.Value, output: ir.Value) -> tuple[Run, ...]:
    if value is first or value is output:
        return ((INPUT if value is first else OUTPUT, 0, channels),)
    node = value.producer()
    members = [] if node is None else read_members(node)
    if sum(last - begin for _, begin, last in members) == channels:
        return tuple(members)
    return ((str(value.name), 0, channels),)


def _exponents(node: ir.Node | None, channels: int) -> NDArray[np.int64] | None:
    text = None if node is None else node.metadata_props.get(EQUALIZED_KEY)
    if text is None:
        return None
    try:
        found = np.array(parse_json(text), dtype=np.int64)
    except (ValueError, TypeError, OverflowError):  # malformed is as good as none, as of another size
        return None
    return found if found.shape == (channels,) else None


def _is_rounding(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in (*_PAIRS, *_PAIRS.values())


def _stored(value: ir.Value) -> tuple[ir.Value, ir.Node | None]:
    """What comes out of the one pair that rounds ``value``, and the node the pair begins with."""
    begins = [use.node for use in value.uses() if use.node.op_type in _PAIRS and use.idx == 0]
    if len(begins) != 1:
        return value, None
    ends = [use.node for use in begins[0].outputs[0].uses()]
    if len(ends) != 1 or ends[0].op_type != _PAIRS[begins[0].op_type] or ends[0].outputs[0].dtype != value.dtype:
        return value, None
    return ends[0].outputs[0], begins[0]


def _unrounded(value: ir.Value | None) -> ir.Value:
    """What went into the pair that ``value`` comes out of, or ``value``."""
    assert value is not None
    end = value.producer()
    inner = end.inputs[0] if end is not None and end.op_type in _PAIRS.values() else None
    begin = None if inner is None else inner.producer()
    if begin is None or end is None or _PAIRS.get(begin.op_type) != end.op_type or begin.inputs[0] is None:
        return value
    return begin.inputs[0]
