"""Which tensors share their channels up to a positive factor: what cross-layer equalisation may scale together.

relu(s x) = s relu(x) for s > 0, and so for every operator here that is positively homogeneous and keeps channels apart.
Tensors joined by such operators, or added to one another, form a group: a factor a channel may enter at the
convolutions that write the group and leave at those that read it. A group that anything else reads or writes is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

# f(s x) = s f(x) for s > 0 on every channel by itself, whatever the attributes.
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"}
)
_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceSum"})
_SUMS = frozenset({"Add", "Sub", "Sum"})


@dataclass(frozen=True)
class ChannelGroup:
    """``values`` share ``size`` channels; all factors enter by ``writers`` and leave by ``readers``."""

    size: int
    values: tuple[ir.Value, ...]
    writers: tuple[ir.Node, ...]
    readers: tuple[ir.Node, ...]


def channel_groups(graph: ir.Graph) -> list[ChannelGroup]:
    """The groups that may be scaled, in graph order: those with a writer and a reader that nothing fixes."""
    found = _Groups(graph)
    return [group for group in found.groups() if group.writers and group.readers]


def channels_of(value: ir.Value | None) -> int | None:
    """The size of axis 1, where it is known."""
    if value is None or value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return None
    return value.shape[1]


class _Groups:
    """Union and find over the tensors of a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._parent: dict[ir.Value, ir.Value] = {}
        self._fixed: set[ir.Value] = set()
        shared = _shared_weights(graph)
        self._scalable = {node for node in graph if is_linear(node) and not shared & set(node.inputs[1:])}
        for value in (*graph.inputs, *graph.outputs):
            self._fix(value)
        for node in graph.all_nodes():  # what control flow reads, too
            self._visit(node)

    def groups(self) -> Iterable[ChannelGroup]:
        members: dict[ir.Value, list[ir.Value]] = {}
        for value in self._parent:
            members.setdefault(self._root(value), []).append(value)
        fixed = {self._root(value) for value in self._fixed}
        for root, values in members.items():
            sizes = {channels_of(value) for value in values}
            size = sizes.pop()
            if root in fixed or sizes or size is None:
                continue
            nodes = [value.producer() for value in values]
            writers = [node for node in nodes if node is not None and node in self._scalable]
            uses = [use for value in values for use in value.uses()]
            readers = dict.fromkeys(use.node for use in uses if use.node in self._scalable)
            yield ChannelGroup(size, tuple(values), tuple(writers), tuple(readers))

    def _visit(self, node: ir.Node) -> None:
        data = [value for value in node.inputs if value is not None and value.const_value is None]
        if node in self._scalable:
            for value in (*data, *node.outputs):
                self._root(value)
        elif node.graph is self._graph and _keeps_channels(node, data):
            for value in (*data, node.outputs[0]):
                self._join(value, node.outputs[0])
        else:
            for value in (*data, *node.outputs):
                self._fix(value)

    def _fix(self, value: ir.Value) -> None:
        self._root(value)
        self._fixed.add(value)

    def _join(self, left: ir.Value, right: ir.Value) -> None:
        self._parent[self._root(left)] = self._root(right)

    def _root(self, value: ir.Value) -> ir.Value:
        path = []
        while (parent := self._parent.setdefault(value, value)) is not value:
            path.append(value)
            value = parent
        for passed in path:
            self._parent[passed] = value
        return value


def is_linear(node: ir.Node) -> bool:
    """A convolution or product whose weight (and bias) are constants, so that factors can be written into them."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    x, weight = node.inputs[:2]
    if x is None or x.const_value is not None or any(v is not None and v.const_value is None for v in node.inputs[1:]):
        return False
    if weight is None or weight.dtype != ir.DataType.FLOAT:
        return False
    if node.op_type == "Conv":
        return True
    two = weight.shape is not None and len(weight.shape) == 2 and x.shape is not None and len(x.shape) == 2
    plain = "transA" not in node.attributes or node.attributes["transA"].as_int() == 0
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    # A bias that is spread, a number for all channels, has no factor a channel to take.
    each = bias is None or (bias.shape is not None and len(bias.shape) == 1 and bias.shape[0] != 1)
    return two and plain and each


def _keeps_channels(node: ir.Node, data: list[ir.Value]) -> bool:
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return False
    output = node.outputs[0]
    if node.op_type in _HOMOGENEOUS:
        return len(data) == 1
    if node.op_type in _SUMS:  # channel by channel: a constant, or one channel for all, is not scaled along
        ranks = {None if value.shape is None else len(value.shape) for value in (*data, output)}
        sizes = {channels_of(value) for value in (*data, output)}
        return len(data) == len(node.inputs) and len(ranks) == len(sizes) == 1 and None not in sizes
    if node.op_type in _RESHAPES:
        return len(data) == 1 and _volume(data[0]) == 1 == _volume(output) and channels_of(output) is not None
    if node.op_type in _REDUCTIONS:
        return len(data) == 1 and _same_images(data[0], output) and _spatial_axes(node)
    return False


def _same_images(x: ir.Value, y: ir.Value) -> bool:
    """Whether a reduction of an image leaves its batch and its channels where they are."""
    if x.shape is None or y.shape is None or len(x.shape) != 4 or len(y.shape) < 2:
        return False
    return str(x.shape[0]) == str(y.shape[0]) and channels_of(x) == channels_of(y)


def _spatial_axes(node: ir.Node) -> bool:
    """Whether a reduction names its axes and channels and images are not among them."""
    axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if axes is not None:
        return set(axes.numpy().ravel().tolist()) <= {2, 3, -1, -2}
    return "axes" in node.attributes and set(node.attributes["axes"].as_ints()) <= {2, 3, -1, -2}


def _volume(value: ir.Value) -> int | None:
    """Numbers a channel: 1 where nothing but images and channels is left."""
    if value.shape is None or len(value.shape) < 2:
        return None
    return 1 if all(size == 1 for size in list(value.shape)[2:]) else None


def _shared_weights(graph: ir.Graph) -> set[ir.Value]:
    values = [
        value for node in graph for value in node.inputs[1:] if value is not None and value.const_value is not None
    ]
    return {value for value in values if len(value.uses()) > 1 or value.is_graph_output()}
