"""Harmless variations of a graph: what other tools, versions and options make of a model without harm.

Each takes a graph and returns another that computes the same, to rounding.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from benchmarks.parity_graph import Net

Variation = Callable[[ir.Model], ir.Model]


def renamed_nodes(model: ir.Model) -> ir.Model:
    copy = model.clone()
    for index, node in enumerate(copy.graph):
        node.name = f"op_{index}"
    return copy


def renamed_tensors(model: ir.Model) -> ir.Model:
    """All but the graph's inputs and outputs."""
    copy = model.clone()
    fixed = {*copy.graph.inputs, *copy.graph.outputs}
    values = [value for node in copy.graph for value in node.outputs if value not in fixed]
    for index, value in enumerate(values):
        value.name = f"/net/tensor_{index}"
    return copy


def renamed_borders(model: ir.Model) -> ir.Model:
    copy = model.clone()
    copy.graph.inputs[0].name, copy.graph.outputs[0].name = "pixels", "scores"
    return copy


def swapped_names(model: ir.Model) -> ir.Model:
    """The names of another version of an exporter: those of equal tensors, in another order."""
    copy = model.clone()
    sums = [node.outputs[0] for node in copy.graph if node.op_type == "Add"]
    names = [value.name for value in sums]
    for value in sums:
        value.name = None
    for value, name in zip(sums, names[1:] + names[:1], strict=True):
        value.name = name
    return copy


def shuffled(seed: int) -> Variation:
    """Another order of the nodes that is one too."""

    def variation(model: ir.Model) -> ir.Model:
        copy, random_ = model.clone(), random.Random(seed)
        waiting, done, order = list(copy.graph), set[ir.Node](), []
        while waiting:
            ready = [n for n in waiting if all(p is None or p in done for p in map(_producer, n.inputs))]
            chosen = random_.choice(ready)
            waiting.remove(chosen)
            done.add(chosen)
            order.append(chosen)
        copy.graph.remove(order)
        copy.graph.extend(order)
        return copy

    return variation


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def without_node_notes(model: ir.Model) -> ir.Model:
    copy = model.clone()
    for node in copy.graph:
        node.metadata_props.clear()
    return copy


def constant_nodes(model: ir.Model) -> ir.Model:
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"constant_{name}")
        node.outputs[0].name = f"{name}_constant"
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
        copy.graph.insert_before(copy.graph[0], node)
        value.replace_all_uses_with(node.outputs[0])
        del copy.graph.initializers[name]
    return copy


def inserted(op_type: str, *constants: float, behind: str = "Relu", **attributes: object) -> Variation:
    """An op that changes nothing, before every node of a kind."""

    def variation(model: ir.Model) -> ir.Model:
        net = Net(model)
        for node in [node for node in net.graph if node.op_type == behind]:
            more = [net.constant(np.array(value, np.float32)) for value in constants]
            net.insert(node, 0, op_type, *more, **attributes)
        return net.model

    return variation


def transposed_twice(model: ir.Model) -> ir.Model:
    net = Net(model)
    for node in [node for node in net.graph if node.op_type == "Relu"]:
        net.insert(node, 0, "Transpose", perm=[0, 2, 3, 1])
        net.insert(node, 0, "Transpose", perm=[0, 3, 1, 2])
    return net.model


def other_relu(op_type: str) -> Variation:
    """relu as Max(x, 0) or Clip(x, 0)."""

    def variation(model: ir.Model) -> ir.Model:
        net = Net(model)
        for node in [node for node in net.graph if node.op_type == "Relu"]:
            node.op_type = op_type
            node.resize_inputs(2)
            node.replace_input_with(1, net.constant(np.array(0, np.float32)))
        return net.model

    return variation


def swapped_operands(model: ir.Model) -> ir.Model:
    copy = model.clone()
    for node in copy.graph:
        if node.op_type == "Add":
            first, second = node.inputs
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)
    return copy


def separate_bias(model: ir.Model) -> ir.Model:
    """The bias of a convolution as an addition behind it."""
    net = Net(model)
    for node in [n for n in net.graph if n.op_type == "Conv" and len(n.inputs) == 3]:
        bias = net.constant(net.array(node, 2).reshape(1, -1, 1, 1))
        node.resize_inputs(2)
        result = node.outputs[0]
        add = ir.Node("", "Add", [result, bias], name=f"{node.name}/bias", metadata_props=dict(node.metadata_props))
        add.outputs[0].name, add.outputs[0].type, add.outputs[0].shape = f"{result.name}_sum", result.type, result.shape
        net.graph.insert_after(node, add)
        for use in list(result.uses()):
            if use.node is not add:
                use.node.replace_input_with(use.idx, add.outputs[0])
    return net.model


def equalized(note: bool) -> Variation:
    """Channels behind every relu scaled by powers of two, and scaled back by what reads them. Folded graphs."""

    def variation(model: ir.Model) -> ir.Model:
        net, random_ = Net(model), np.random.default_rng(0)
        for relu in [node for node in net.graph if node.op_type == "Relu"]:
            conv = _producer(relu.inputs[0])
            readers = [use.node for use in relu.outputs[0].uses()]
            if conv is None or conv.op_type != "Conv" or any(node.op_type != "Conv" for node in readers):
                continue
            exponents = random_.integers(-3, 4, len(net.array(conv)))
            factor = np.exp2(exponents).astype(np.float32)
            net.change(conv, lambda w, f=factor: w * f.reshape(-1, 1, 1, 1))
            if len(conv.inputs) == 3:
                net.change(conv, lambda b, f=factor: b * f, 2)
            for node in readers:
                net.change(node, lambda w, f=factor: w / f.reshape(1, -1, 1, 1))
            for node in (conv, relu) if note else ():
                node.metadata_props["rir_deploy.equalized"] = str(exponents.tolist())
        return net.model

    return variation


# On any float graph.
VARIATIONS: dict[str, Variation] = {
    "nodes renamed": renamed_nodes,
    "tensors renamed": renamed_tensors,
    "nodes and tensors renamed": lambda model: renamed_nodes(renamed_tensors(model)),
    "input and output renamed": renamed_borders,
    "names of sums rotated": swapped_names,
    **{f"nodes in another order, {seed}": shuffled(seed) for seed in range(8)},
    "notes on nodes removed": without_node_notes,
    "weights as Constant nodes": constant_nodes,
    "Identity before each relu": inserted("Identity"),
    "Dropout before each relu": inserted("Dropout"),
    "times 1": inserted("Mul", 1.0),
    "plus 0": inserted("Add", 0.0),
    "Cast to the same type": inserted("Cast", to=1),
    "a second relu": inserted("Relu"),
    "Identity before each convolution": inserted("Identity", behind="Conv"),
    "transposed and back": transposed_twice,
    "relu as Max": other_relu("Max"),
    "relu as Clip": other_relu("Clip"),
    "operands of additions swapped": swapped_operands,
    "bias as an addition": separate_bias,
}
# On folded graphs.
FOLDED_VARIATIONS: dict[str, Variation] = {
    "equalised by powers of two, noted": equalized(True),
    "equalised by powers of two, not noted": equalized(False),
}
