"""If, Loop and Scan: what is inside stays, what it captures is there, whatever the fold makes of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from rir_deploy.errors import InputError
from rir_deploy.fold import fold
from tests.fold.graphs import Writer, ops

RNG = np.random.default_rng(3)


def _inside(nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, output, [], [helper.make_tensor_value_info(output, TensorProto.DOUBLE, [None] * 4)])


def _if(w: Writer, condition: str, then: onnx.GraphProto, other: onnx.GraphProto, channels: int) -> str:
    return w.op("If", [condition], channels, then_branch=then, else_branch=other)


def _one(op: str, x: str, name: str) -> onnx.GraphProto:
    return _inside([helper.make_node(op, [x], [name])], name)


def _flag(w: Writer) -> str:
    w.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    return "flag"


def _same(model: ir.Model) -> ir.Model:
    """Fold, run both with every flag, and return the result."""
    proto = ir.to_proto(model)
    result = fold(model).model
    folded = ir.to_proto(result)
    onnx.checker.check_model(folded, full_check=True)
    for flag in (True, False):
        feed = {"x": RNG.standard_normal((2, 3, 8, 8)), "flag": np.array(flag)}
        feed = {value.name: feed[value.name] for value in proto.graph.input}
        for a, b in zip(*(ReferenceEvaluator(m).run(None, feed) for m in (proto, folded)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    return result


def _block(w: Writer, x: str) -> str:
    """Two branches and a batch norm, which become one convolution."""
    return w.bn(w.add(w.conv(x, 4), w.conv(x, 4, 1)))


def test_a_folded_tensor_is_captured() -> None:
    w = Writer()
    c = _block(w, w.input(3))
    y = _if(w, _flag(w), _one("Relu", c, "t"), _one("Neg", c, "e"), 4)
    assert ops(_same(w.model(y, rank=4))) == {"Conv": 1, "If": 1}


def test_it_is_captured_and_read() -> None:
    w = Writer()
    c = _block(w, w.input(3))
    y = _if(w, _flag(w), _one("Relu", c, "t"), _one("Neg", c, "e"), 4)
    result = _same(w.model(w.add(w.relu(c), _block(w, w.relu(y))), c, rank=4))
    assert ops(result)["Conv"] == 2


def test_a_graph_that_nobody_reads() -> None:
    """It holds back nothing: not the tensor that it captures, nor what only it reads."""
    w = Writer()
    c = _block(w, w.input(3))
    only = w.conv(c, 4)
    _if(w, _flag(w), _one("Relu", c, "t"), _one("Neg", only, "e"), 4)
    assert ops(_same(w.model(w.conv(c, 2, 1), rank=4))) == {"Conv": 1}


def test_captured_two_graphs_further_in() -> None:
    w = Writer()
    x = w.input(3)
    c, d = _block(w, x), _block(w, x)
    deep = helper.make_node(
        "If", ["flag"], ["deep"], then_branch=_one("Relu", d, "t2"), else_branch=_one("Neg", c, "e2")
    )
    then = _inside([deep, helper.make_node("Add", ["deep", c], ["t"])], "t")
    y = _if(w, _flag(w), then, _one("Neg", d, "e"), 4)
    assert ops(_same(w.model(w.relu(y), rank=4)))["Conv"] <= 2


@pytest.mark.parametrize("dead", [True, False])
def test_a_dead_graph_inside_of_a_live_one(dead: bool) -> None:
    w = Writer()
    c = _block(w, w.input(3))
    only = w.conv(c, 4)
    deep = helper.make_node(
        "If", ["flag"], ["deep"], then_branch=_one("Relu", only, "t2"), else_branch=_one("Neg", only, "e2")
    )
    then = _inside([deep, helper.make_node("Relu", [c if dead else "deep"], ["t"])], "t")
    y = _if(w, _flag(w), then, _one("Neg", c, "e"), 4)
    assert ops(_same(w.model(y, rank=4)))["Conv"] == (1 if dead else 2)


def test_a_zero_is_captured() -> None:
    w = Writer()
    x = w.conv(w.input(3), 2, 1)
    zero = w.op("Sub", [x, x], 2)
    y = _if(w, _flag(w), _one("Exp", zero, "t"), _one("Neg", zero, "e"), 2)
    _same(w.model(w.conv(y, 4), rank=4))


def test_dead_channels_that_are_captured_stay() -> None:
    w = Writer()
    weight = w.rng.standard_normal((4, 3, 1, 1))
    weight[2] = 0
    c = w.relu(w.op("Conv", [w.input(3), w.constant(weight)], 4))
    y = _if(w, _flag(w), _one("Exp", c, "t"), _one("Neg", c, "e"), 4)
    _same(w.model(w.add(w.conv(c, 2, 1), w.conv(y, 2, 1)), rank=4))


def test_a_channel_slice_is_captured() -> None:
    w = Writer()
    x = w.input(3)
    joined = w.relu(w.concat(w.conv(x, 4), w.conv(x, 4)))
    part = w.slice(joined, 2, 6)
    y = _if(w, _flag(w), _one("Relu", part, "t"), _one("Neg", part, "e"), 4)
    _same(w.model(y, w.conv(joined, 2), rank=4))


def _loop(w: Writer, x: str, captured: str) -> str:
    value = helper.make_tensor_value_info
    inputs = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, [])]
    inputs += [value("before", TensorProto.DOUBLE, [None] * 4)]
    nodes = [
        helper.make_node("Add", ["before", captured], ["sum"]),
        helper.make_node("Relu", ["sum"], ["after"]),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    outputs = [value("on", TensorProto.BOOL, []), value("after", TensorProto.DOUBLE, [None] * 4)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    trips = [w.constant(np.array(3)), w.constant(np.array(True))]
    return w.op("Loop", [*trips, x], w.channels[x], body=body)


def _scan(w: Writer, x: str, captured: str) -> str:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ReduceMax", [captured], ["most"], keepdims=0),
        helper.make_node("Mul", ["image", "most"], ["scaled"]),
    ]
    images = [[value(name, TensorProto.DOUBLE, [None] * 3)] for name in ("image", "scaled")]
    body = helper.make_graph(nodes, "body", *images)
    return w.op("Scan", [x], w.channels[x], body=body, num_scan_inputs=1)


@pytest.mark.parametrize("make", [_loop, _scan])
def test_loops(make: Callable[[Writer, str, str], str]) -> None:
    w = Writer()
    x = w.input(3)
    a, b = _block(w, x), _block(w, w.relu(_block(w, x)))
    result = _same(w.model(_block(w, w.relu(make(w, a, b))), rank=4))
    assert ops(result)["Conv"] < 8


def test_a_long_graph_inside() -> None:
    """Longer than Python recurses."""
    w = Writer()
    c = _block(w, w.input(3))
    names = [c, *(f"v{i}" for i in range(1500))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    y = _if(w, _flag(w), _inside(nodes, names[-1]), _one("Neg", c, "e"), 4)
    assert ops(_same(w.model(y, rank=4))) == {"Conv": 1, "If": 1}


def test_an_output_that_is_a_value_of_the_graph_around() -> None:
    """Neither onnx's checker nor ONNX Runtime takes such a graph: it is called invalid, not a bug."""
    w = Writer()
    c = _block(w, w.input(3))
    y = _if(w, _flag(w), _inside([], c), _one("Neg", c, "e"), 4)
    with pytest.raises(InputError, match=f"'{c}' is not an output of any node"):
        fold(w.model(y, rank=4))


def test_names_inside_are_not_taken() -> None:
    """New tensors of the graph do not get the name of a value in a nested one, which would hide them there."""
    w = Writer()
    c = _block(w, w.input(3))
    taken = [f"{c}.conv", f"{c}.conv.weight", f"{c}.conv.bias"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in zip([c, *taken], [*taken, "t"], strict=True)]
    y = _if(w, _flag(w), _inside(nodes, "t"), _one("Neg", c, "e"), 4)
    result = _same(w.model(y, rank=4))
    names = [value.name for graph in (result.graph, *result.graph.subgraphs()) for n in graph for value in n.outputs]
    assert len(names) == len(set(names))
    assert not set(taken) & {str(name) for name in result.graph.initializers}
