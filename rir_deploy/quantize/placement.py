"""Where Q/DQ pairs go: pure decisions, read by `qdq`, which writes them.

Both flavours: one pair a tensor, on the input of every quantised node; its readers share the pair.

TensorRT (NVIDIA, "Working with quantized types"): a convolution takes the relu and an Add behind it along, and gives
int8 if a Q follows that.
1. Nothing between convolution and relu, nor between convolution and Add, nothing on outputs of the graph.
2. An Add whose sum becomes int8 (at once or behind a relu) gets a pair on every operand but one, the convolution that
   takes the Add along: of two convolutions the one with more weights.
3. A node kept in float reads the float tensor: what hurt it may be the rounding of its input.

CPU (ONNX Runtime's QLinear operators, OpenVINO): a convolution is an integer one only between DQ and Q.
1. A pair behind every quantised convolution, after its relu if it has one; all readers read it, kept ones as well,
   since a float reader of the tensor in between would make the convolution a float one.
2. An Add whose sum becomes uint8 gets a pair on every operand.
3. No pair on what leaves the graph, or would leave it but for a change of shape: a head that ends in a convolution
   computes its last layer in float rather than rounding the logits to 256 steps. With an average between the two it
   is an integer one, since the average undoes the rounding.

CPUs are given this flavour only: OpenVINO computes the other one on integers too, but 2026.4 gets a traced RiR wrong by
it (5 dB; right with this one).

Averages stay in float, both in and out: rounding means to 8 bits costs more than the few additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from rir_deploy.quantize.options import Flavour
from rir_deploy.quantize.select import Selection, Weighted

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Cast"})
# Values go through unchanged, so the pair behind such a node uses the scale of the pair before it.
_SAME_VALUES = _VIEWS - {"Cast"} | {"MaxPool", "Slice", "Dropout"}


@dataclass(frozen=True)
class Placement:
    """``tensors``: those that get a pair, in graph order; ``float_readers`` go on reading the float tensor."""

    tensors: tuple[ir.Value, ...]
    float_readers: frozenset[ir.Node]

    def readers(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """The inputs that read the pair on ``value``: (node, input index)."""
        return [(use.node, use.idx) for use in value.uses() if use.node not in self.float_readers]


def place(graph: ir.Graph, selection: Selection, flavour: Flavour) -> Placement:
    """Decide for every tensor of the graph."""
    convs = {found.node: found for found in selection.nodes}
    tensors = {found.x for found in selection.nodes}
    if flavour == "cpu":
        behind = [_behind_relu(node.outputs[0]) for node in convs if node.op_type == "Conv"]
        tensors.update(value for value in behind if not _leaves(value))
    kept = selection.kept
    for node in reversed(list(graph)):  # a pair on an operand may make the sum before it an int8 one
        if node.op_type == "Add" and _behind_relu(node.outputs[0]) in tensors:
            operands = [value for value in node.inputs if value is not None]
            if any(value.const_value is not None for value in operands):
                continue  # a bias, not a shortcut
            fused = _fused(node, operands, convs) if flavour == "tensorrt" else None
            tensors.update(value for value in operands if value is not fused and value.producer() not in kept)
    ordered = [value for value in (*graph.inputs, *(v for node in graph for v in node.outputs)) if value in tensors]
    return Placement(tuple(ordered), frozenset(kept) if flavour == "tensorrt" else frozenset())


def range_source(value: ir.Value, tensors: frozenset[ir.Value]) -> ir.Value:
    """The tensor whose range ``value`` uses: one further up that holds the same values and has a pair, or itself."""
    source, current = value, value.producer()
    while current is not None and current.op_type in _SAME_VALUES and current.inputs[0] is not None:
        if current.inputs[0] in tensors:
            source = current.inputs[0]
        current = current.inputs[0].producer()
    return source


def _behind_relu(value: ir.Value) -> ir.Value:
    """The output of the relu that is the only reader of ``value``, or ``value``."""
    readers = [use.node for use in value.uses()]
    fused = len(readers) == 1 and readers[0].op_type == "Relu" and not value.is_graph_output()
    return readers[0].outputs[0] if fused else value


def _leaves(value: ir.Value) -> bool:
    """Whether ``value`` is an output of the graph, or becomes one by changes of shape alone."""
    uses = value.uses()
    if value.is_graph_output() or not uses:
        return True
    return all(use.node.op_type in _VIEWS and use.idx == 0 and _leaves(use.node.outputs[0]) for use in uses)


def _fused(add: ir.Node, operands: list[ir.Value], convs: Mapping[ir.Node, Weighted]) -> ir.Value | None:
    """The operand whose convolution takes the Add along."""
    sole = [value for value in operands if len(value.uses()) == 1 and not value.is_graph_output()]
    found = [(convs[node].weight_array.size, value) for value in sole if (node := value.producer()) in convs and node]
    return max(found, key=lambda pair: pair[0])[1] if found else None
