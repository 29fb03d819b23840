"""Tensors without elements, and strings: nothing to fold, and nothing to fall over."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rir_deploy.fold import FoldResult, fold, list_layers, measure_work
from tests.fold.graphs import Writer, ops

RNG = np.random.default_rng(0)


def _same(proto: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> FoldResult:
    result = fold(ir.from_proto(proto))
    folded = ir.to_proto(result.model)
    onnx.checker.check_model(folded, full_check=True)
    feed = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    for a, b in zip(*(ReferenceEvaluator(m).run(None, feed) for m in (proto, folded)), strict=True):
        assert a.shape == b.shape
        if a.dtype.kind in "OU":
            assert a.tolist() == b.tolist()
        else:
            np.testing.assert_allclose(a, b, rtol=1e-9)
    return result


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 2, 4), (2, 3, 0), (2, 0, 4, 4), (2, 3, 0, 4), (0, 0, 0, 0, 0)])
@pytest.mark.parametrize("op", ["Relu", "Neg", "Identity", "ReduceSum", "Exp"])
def test_an_input_without_elements(op: str, shape: tuple[int, ...]) -> None:
    w = Writer()
    w.inputs.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape))
    w.channels["x"] = shape[1]
    first = w.op("Relu", ["x"], shape[1])
    _same(ir.to_proto(w.model(w.op(op, [first], shape[1]))), {"x": shape})


@pytest.mark.parametrize("op", ["Conv", "BatchNormalization", "Add", "Concat", "Split", "Slice", "Pad"])
@pytest.mark.parametrize("shape", [(2, 0, 4, 4), (0, 3, 4, 4), (2, 3, 0, 4)])
def test_ops_that_the_fold_knows(op: str, shape: tuple[int, ...]) -> None:
    """Only folded: the reference runs few of them on such tensors."""
    w = Writer()
    w.inputs.append(helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape))
    channels = w.channels["x"] = shape[1]
    more = {
        "Conv": [np.ones((4, channels, 1, 1))],
        "BatchNormalization": [np.ones(channels)] * 4,
        "Add": [np.ones((1, channels, 1, 1))],
        "Split": [np.array([channels, 0])],
        "Slice": [np.array([n]) for n in (0, 2, 1)],
        "Pad": [np.array([0, 1, 0, 0, 0, 0, 0, 0])],
    }
    inputs = ["x", *(w.constant(array) for array in more.get(op, []))]
    inputs += ["x"] if op == "Concat" else []
    attributes = {"axis": 1} if op in ("Concat", "Split") else {}
    y = w.op(op, inputs, channels, outputs=2 if op == "Split" else 1, **attributes)
    result = fold(w.model(y))
    assert ops(result.model)[op] == 1
    for refused in result.refused:
        assert "not known" not in refused.reason


@pytest.mark.parametrize("bounds", [(4, 8), (2, 2), (0, 0), (3, 1)])
def test_an_empty_slice_of_channels_beside_a_network(bounds: tuple[int, int]) -> None:
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    empty = w.op("Slice", [x, *(w.constant(np.array([n])) for n in (*bounds, 1))], 0)
    y = w.bn(w.conv(w.concat(x, w.relu(empty)), 2))
    result = _same(ir.to_proto(w.model(y)), {"x": (2, 3, 8, 8)})
    assert ops(result.model)["BatchNormalization"] == 0


@pytest.mark.parametrize("sizes", [(4, 0), (0, 4), (0, 2, 0, 2)])
def test_a_split_into_nothing(sizes: tuple[int, ...]) -> None:
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    first = w.op("Split", [x, w.constant(np.array(sizes))], 0, outputs=len(sizes), axis=1)
    parts = [first, *(f"{first}_{i}" for i in range(1, len(sizes)))]
    w.channels.update(zip(parts, sizes, strict=True))
    y = w.conv(w.relu(w.concat(*reversed(parts))), 2)
    _same(ir.to_proto(w.model(y, *(part for part, size in zip(parts, sizes, strict=True) if not size))), IMAGES)


IMAGES = {"x": (2, 3, 8, 8)}


def test_a_convolution_without_output_channels() -> None:
    w = Writer()
    x = w.conv(w.input(3), 4)
    empty = w.op("Conv", [x, w.constant(np.zeros((0, 4, 1, 1)))], 0)
    result = fold(w.model(w.relu(x), empty))
    assert [refused.reason for refused in result.refused] == ["its weight has no elements"]


def _labelled(nodes: list[onnx.NodeProto], kind: int, shape: list[str | int], labels: list[bytes]) -> onnx.ModelProto:
    """A classifier that says names; ``nodes`` make "y" of the index "i" and the strings "labels"."""
    start = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ArgMax", ["f"], ["i"], axis=1, keepdims=0),
    ]
    arrays = {"w": RNG.standard_normal((3, 3, 1, 1)), "b": RNG.standard_normal((1, 3, 1, 1))}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    weights.append(helper.make_tensor("labels", TensorProto.STRING, [len(labels)], labels))
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 3, 8, 8])
    graph = helper.make_graph([*start, *nodes], "g", [x], [helper.make_tensor_value_info("y", kind, shape)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _constant(name: str, **value: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], **value)


STRINGS = helper.make_tensor("s", TensorProto.STRING, [3], [b"a", b"b", b"c"])
LABELS: list[list[onnx.NodeProto]] = [
    [helper.make_node("Gather", ["labels", "i"], ["y"])],
    [helper.make_node("Identity", ["labels"], ["l"]), helper.make_node("Gather", ["l", "i"], ["y"])],
    [_constant("l", value_strings=[b"a", b"b", b"c"]), helper.make_node("Gather", ["l", "i"], ["y"])],
    [_constant("l", value=STRINGS), helper.make_node("Gather", ["l", "i"], ["y"])],
    [
        helper.make_node("Concat", ["labels", "labels"], ["l"], axis=0),
        helper.make_node("Gather", ["l", "i"], ["y"]),
    ],
]


@pytest.mark.parametrize("nodes", LABELS, ids=["stored", "identity", "strings", "tensor", "concat"])
@pytest.mark.parametrize("long", [False, True])
def test_strings(nodes: list[onnx.NodeProto], long: bool) -> None:
    """``long``: too long to be of use for the inference of shapes."""
    labels = [(f"class {i} " * (200 if long else 1)).encode() for i in range(3)]
    proto = _labelled(nodes, TensorProto.STRING, ["N"], labels)
    result = _same(proto, {"x": (2, 3, 8, 8)})
    assert ops(result.model)["Add"] == 0
    model = ir.from_proto(proto)
    assert measure_work(model).macs == 3 * 3 * 64
    assert [layer.op for layer in list_layers(model)] == ["Conv"]


def test_shapes_and_comparisons_of_strings() -> None:
    nodes = [
        helper.make_node("Equal", ["labels", "labels"], ["e"]),
        helper.make_node("Cast", ["e"], ["n"], to=TensorProto.INT64),
        helper.make_node("Shape", ["labels"], ["s"]),
        helper.make_node("Add", ["n", "s"], ["m"]),
        helper.make_node("Gather", ["m", "i"], ["y"]),
    ]
    _same(_labelled(nodes, TensorProto.INT64, ["N"], [b"cat", b"dog", b"car"]), {"x": (2, 3, 8, 8)})
