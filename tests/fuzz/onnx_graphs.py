"""Mutations of an ONNX graph itself: nodes, edges, names, opsets, functions, metadata; and of its bytes as protobuf."""

from __future__ import annotations

import contextlib
import json
import random

from onnx import ModelProto, NodeProto, helper

from tests.fuzz.noise import ODD, mutate_bytes, mutate_data
from tests.fuzz.onnx_values import NAMES, NUMBERS, VALUES, Mutation

OPS = (
    *("Conv", "ConvTranspose", "BatchNormalization", "Add", "Sub", "Mul"),
    *("Div", "Sum", "Relu", "Clip", "Concat", "Split"),
    *("Slice", "Pad", "AveragePool", "MaxPool"),
    *("GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Transpose", "Gemm"),
    *("MatMul", "Identity", "Cast", "Constant", "ConstantOfShape", "Shape"),
    *("Expand", "Tile", "Range", "Resize", "If", "Loop"),
    *("Scan", "QuantizeLinear", "DequantizeLinear", "RandomNormal", "NoSuchOp"),
)


def node_gone(rng: random.Random, model: ModelProto) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def node_twice(rng: random.Random, model: ModelProto) -> None:
    if model.graph.node:
        model.graph.node.append(rng.choice(model.graph.node))


def nodes_shuffled(rng: random.Random, model: ModelProto) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def node_op(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if rng.random() < 0.8:
        node.op_type = rng.choice(OPS)
    else:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "pkg", *NAMES))


def edge_moved(rng: random.Random, model: ModelProto) -> None:
    """A node reads another tensor: a later one makes a cycle, its own output a loop."""
    node = _node(rng, model)
    names = [name for other in model.graph.node for name in other.output]
    names += [tensor.name for tensor in model.graph.initializer] + [value.name for value in model.graph.input]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, *node.output, *NAMES])


def edge_added(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    node.input.extend([rng.choice(["", *(list(node.input) or ["x"])])] * rng.choice((1, 2, 300)))


def edge_gone(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def output_renamed(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    names = [name for other in model.graph.node for name in other.output]
    if node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([*names, *NAMES])


def output_moved(rng: random.Random, model: ModelProto) -> None:
    """The graph gives another tensor, one of no name, one of its inputs or weights, or the same twice."""
    if model.graph.output:
        value = rng.choice(model.graph.output)
        inside = [name for node in model.graph.node for name in node.output]
        outside = [item.name for item in (*model.graph.input, *model.graph.initializer)]
        value.name = rng.choice([*inside, *outside, *NAMES])
        if rng.random() < 0.3:
            model.graph.output.append(value)


def ends_gone(rng: random.Random, model: ModelProto) -> None:
    ends = rng.choice((model.graph.input, model.graph.output))
    del ends[rng.randrange(len(ends)) if ends and rng.random() < 0.5 else 0 :]


def input_added(rng: random.Random, model: ModelProto) -> None:
    names = [tensor.name for tensor in model.graph.initializer] + [v.name for v in model.graph.input] + list(NAMES)
    model.graph.input.append(helper.make_tensor_value_info(rng.choice(names), 1, [rng.choice(NUMBERS), 3]))


def opset(rng: random.Random, model: ModelProto) -> None:
    change = rng.choice(("version", "none", "twice", "domain"))
    if change == "none" or not model.opset_import:
        del model.opset_import[:]
    elif change == "version":
        model.opset_import[0].version = rng.choice((*NUMBERS, 6, 9, 11, 13, 21, 23, 30))
    elif change == "twice":
        model.opset_import.append(helper.make_opsetid("", rng.choice((1, 9, 20))))
    else:
        model.opset_import[0].domain = rng.choice(("ai.onnx", "com.microsoft", *NAMES))


def ir_version(rng: random.Random, model: ModelProto) -> None:
    model.ir_version = rng.choice(NUMBERS)


def names_odd(rng: random.Random, model: ModelProto) -> None:
    """A tensor renamed wherever it stands: the graph means the same."""
    node = _node(rng, model)
    if not node.output:
        return
    old, new = node.output[0], rng.choice(NAMES)
    for other in model.graph.node:
        for ends in (other.input, other.output):
            ends[:] = [new if name == old else name for name in ends]
    node.name = rng.choice(NAMES)


def metadata(rng: random.Random, model: ModelProto) -> None:
    entry = rng.choice(list(model.metadata_props) or [model.metadata_props.add()])
    entry.key = entry.key or rng.choice(("rir_deploy.provenance", "rir_deploy.layers"))
    try:
        entry.value = json.dumps(mutate_data(rng, json.loads(entry.value))[1])
    except ValueError:
        entry.value = rng.choice(('{"stages": 3}', "[" * 5000, "", "null", json.dumps(str(rng.choice(ODD)))))
    if rng.random() < 0.2:
        model.metadata_props.append(entry)


def function(rng: random.Random, model: ModelProto) -> None:
    """A function in the place of an op, that calls itself, or another that calls it."""
    node = _node(rng, model)
    ends = [f"i{place}" for place in range(len(node.input))], [f"o{place}" for place in range(len(node.output))]
    callee = rng.choice((node.op_type, "Other"))
    for name, called in ((node.op_type, callee), ("Other", node.op_type)):
        body = [helper.make_node(called, *ends, domain="pkg")]
        model.functions.append(helper.make_function("pkg", name, *ends, body, [helper.make_opsetid("pkg", 1)]))
    node.domain = "pkg"
    model.opset_import.append(helper.make_opsetid("pkg", 1))


def long_chain(rng: random.Random, model: ModelProto) -> None:
    """Thousands of nodes in a row: what follows edges by recursion may run out of it."""
    if not model.graph.output:
        return
    name = first = model.graph.output[0].name
    for place in range(rng.choice((100, 3000))):
        model.graph.node.append(helper.make_node(rng.choice(("Relu", "Identity")), [name], [f"{first}~{place}"]))
        name = f"{first}~{place}"
    model.graph.output[0].name = name


def _node(rng: random.Random, model: ModelProto) -> NodeProto:
    return rng.choice(list(model.graph.node) or [NodeProto()])


GRAPHS: tuple[Mutation, ...] = (
    node_gone,
    node_twice,
    nodes_shuffled,
    node_op,
    node_op,
    edge_moved,
    edge_moved,
    edge_added,
    edge_gone,
    output_renamed,
    output_moved,
    ends_gone,
    input_added,
    opset,
    ir_version,
    names_odd,
    metadata,
    function,
    long_chain,
)


def nested(depth: int) -> bytes:
    """A graph within a graph within a graph, as protobuf: what is read by recursion may run out of it."""
    inner = helper.make_graph([], "deepest", [], []).SerializeToString()
    for _ in range(depth):
        attribute = _field(1, b"then_branch") + _field(6, inner) + b"\xa0\x01\x05"  # name, g, type GRAPH
        node = _field(1, b"x") + _field(2, b"y") + _field(4, b"If") + _field(5, attribute)
        inner = _field(1, node) + _field(2, b"deep")
    return inner


def _field(number: int, data: bytes) -> bytes:
    """A field of protobuf with a length: its tag, the length as a varint, the data."""
    length, size = b"", len(data)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def mutate_onnx(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    """One to three changes of a model, or one of its bytes."""
    share = rng.random()
    if share < 0.15:
        return mutate_bytes(rng, whole)
    if share < 0.18:  # protobuf merges what comes twice
        return "onnx: merged twice", whole + _field(7, ModelProto.FromString(whole).graph.SerializeToString())
    if share < 0.2:
        return "onnx: nested", whole + _field(7, nested(rng.choice((1, 10, 30, 40, 1000, 20_000))))
    model = ModelProto.FromString(whole)
    chosen = [rng.choice((*VALUES, *GRAPHS)) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    for mutation in chosen:
        with contextlib.suppress(Exception):  # the one before may have left nothing that this one could read
            mutation(rng, model)
    return f"onnx: {chosen[0].__name__.replace('_', ' ')}", model.SerializeToString()
