"""Equalisation changes no bit of what a network computes, and touches nothing that it may not."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rir_deploy.errors import InputError
from rir_deploy.fold import fold
from rir_deploy.quantize import equalize as module
from rir_deploy.quantize.channels import channel_groups
from rir_deploy.quantize.equalize import EQUALIZED_KEY, equalize
from rir_deploy.quantize.quantize import canonical
from tests.conftest import Made
from tests.fold.graphs import Writer
from tests.quantize.graphs import array, chain, residual, two_streams, writer

Make = Callable[[], ir.Model]


def dense(w: Writer, x: str, rows: int, kind: str) -> str:
    """A product behind features [N, C]: Gemm with the weight either way round, or MatMul."""
    columns = w.channels[x]
    shape = (rows, columns) if kind == "gemm_t" else (columns, rows)
    weight, bias = w.constant(w.rng.standard_normal(shape)), w.constant(w.rng.standard_normal(rows))
    if kind == "matmul":
        return w.op("MatMul", [x, weight], rows)
    return w.op("Gemm", [x, weight, bias], rows, **({"transB": 1} if kind == "gemm_t" else {"alpha": 0.5}))


def head(kind: str) -> Make:
    def make() -> ir.Model:
        w = writer()
        x = w.relu(w.conv(w.input(3), 8, bias=True))
        x = w.op("Flatten", [w.op("GlobalAveragePool", [x], 8)], 8)
        return w.model(dense(w, w.relu(dense(w, x, 6, kind)), 5, kind))

    return make


def pools() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.op("MaxPool", [x], 8, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = w.op("LeakyRelu", [w.conv(x, 6, bias=True)], 6, alpha=0.1)
    x = w.op("AveragePool", [x], 6, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = w.op("GlobalMaxPool", [w.op("Identity", [w.conv(x, 7)], 7)], 7)
    return w.model(w.op("Flatten", [w.conv(x, 5, 1)], 5))


def mean_head() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.op("ReduceMean", [x, w.constant(np.array([2, 3]))], 8, keepdims=0)
    return w.model(dense(w, x, 5, "gemm_t"))


def groups() -> ir.Model:
    """Dense, depthwise, grouped with more rows than columns, dense."""
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.relu(w.conv(x, 8, bias=True, group=8))
    x = w.relu(w.conv(x, 12, bias=True, group=4))
    x = w.relu(w.conv(x, 4, 1, group=2))
    return w.model(w.conv(x, 5))


def two_readers() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    return w.model(w.conv(w.add(w.conv(x, 6, 1), w.conv(x, 6)), 5))


def any_size() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3, ("height", "width")), 8, bias=True))
    x = w.relu(w.add(w.conv(x, 8, bias=True), x))
    return w.model(w.op("GlobalAveragePool", [w.conv(x, 5)], 5))


def spread_sum() -> ir.Model:
    """A sum with [N, C, 1, 1]: one number for all pixels of a channel."""
    w = writer()
    x = w.conv(w.input(3), 8)
    return w.model(w.conv(w.add(x, w.op("GlobalAveragePool", [w.conv("x", 8)], 8)), 5))


def one_channel_for_all() -> ir.Model:
    w = writer()
    x = w.conv(w.input(3), 8)
    return w.model(w.conv(w.op("Add", [x, w.conv("x", 1)], 8), 5))


def folded() -> ir.Model:
    return fold(two_streams()).model


# How many groups there are to scale: that a graph has none would prove nothing.
SCALED: dict[str, tuple[Make, int]] = {
    "chain": (chain, 2),
    "shortcuts": (residual, 2),
    "two streams": (two_streams, 1),
    "two streams folded": (folded, 2),
    "gemm": (head("gemm"), 2),
    "gemm transposed": (head("gemm_t"), 2),
    "matmul": (head("matmul"), 2),
    "pools": (pools, 3),
    "mean": (mean_head, 1),
    "groups": (groups, 4),
    "two readers": (two_readers, 2),
    "any size": (any_size, 1),
    "sum over pixels": (spread_sum, 1),
}


def random_exponents(model: ir.Model, seed: int = 0) -> dict[str, tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return {
        str(group.values[0].name): tuple(map(int, rng.integers(-9, 10, group.size)))
        for group in channel_groups(model.graph)
    }


def inputs(model: ir.Model, dtype: type) -> dict[str, NDArray[np.floating]]:
    rng = np.random.default_rng(11)
    return {
        str(value.name): rng.standard_normal([n if isinstance(n, int) else 8 for n in value.shape or ()]).astype(dtype)
        for value in model.graph.inputs
    }


def in_onnxruntime(model: ir.Model) -> list[NDArray[np.float32]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs(model, np.float32)))


def in_float64(model: ir.Model) -> list[NDArray[np.float64]]:
    """By onnx's own evaluator in numpy."""
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    del proto.graph.value_info[:]
    return list(ReferenceEvaluator(proto).run(None, inputs(model, np.float64)))


def assert_same_bits(model: ir.Model, other: ir.Model) -> None:
    for evaluate in (in_onnxruntime, in_float64):
        for one, two in zip(evaluate(model), evaluate(other), strict=True):
            assert np.abs(one).max() > 0
            assert np.array_equal(one, two)


def equalized(model: ir.Model, exponents: dict[str, tuple[int, ...]]) -> ir.Model:
    other = canonical(model)
    equalize(other.graph, exponents)
    return other


@pytest.mark.parametrize("name", SCALED)
def test_not_a_bit_changes(name: str) -> None:
    make, count = SCALED[name]
    model = canonical(make())
    exponents = random_exponents(model)
    assert len(exponents) == count
    other = equalized(model, exponents)
    assert_same_bits(model, other)
    changed = [
        key
        for key, v in model.graph.initializers.items()
        if not np.array_equal(array(v), array(other.graph.initializers[key]))
    ]
    assert bool(changed) == bool(count)


@pytest.mark.parametrize("kind", ["folded", "traced"])
def test_not_a_bit_of_a_whole_network_changes(kind: str, made: Made) -> None:
    if kind == "folded":
        source = ir.load(made.onnx)
    else:
        from rir_deploy.export import ExportOptions, export
        from rir_deploy.pipeline.checkpoints import load_module

        source = export(load_module(made.checkpoint).module, ExportOptions((1, 8, 8)))
    model = canonical(source)
    exponents = random_exponents(model)
    assert len(exponents) >= (5 if kind == "folded" else 1)
    assert_same_bits(model, equalized(model, exponents))


def test_what_a_shortcut_adds_is_tied() -> None:
    groups = {group.values[0].name: group for group in channel_groups(canonical(residual()).graph)}
    names = [{str(value.name) for value in group.values} for group in groups.values()]
    assert {"conv_0", "relu_1", "conv_2", "add_3", "relu_4"} in names
    tied = next(group for group in groups.values() if len(group.values) == 5)
    assert [node.name for node in tied.writers] == ["n0", "n2"]
    assert {node.name for node in tied.readers} == {"n2", "n5", "n6"}


@pytest.mark.parametrize("fault", ["reader", "writer", "one channel"])
def test_a_factor_on_the_wrong_channel_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: with each of these, outputs differ."""
    rows, columns = module._scale_rows, module._scale_columns
    if fault == "reader":
        monkeypatch.setattr(module, "_scale_columns", lambda node, f, weights: columns(node, np.roll(f, 1), weights))
    elif fault == "writer":
        monkeypatch.setattr(module, "_scale_rows", lambda node, f, weights: rows(node, np.roll(f, 1), weights))
    else:
        double = lambda node, f, weights: rows(node, f * np.where(np.arange(len(f)) == 3, 2, 1), weights)  # noqa: E731
        monkeypatch.setattr(module, "_scale_rows", double)
    model = canonical(chain())
    with pytest.raises(AssertionError):
        assert_same_bits(model, equalized(model, random_exponents(model)))


# --- what may not be scaled -----------------------------------------------------------------------------------------


def between(op_type: str, *constants: NDArray[np.floating], **attributes: object) -> Make:
    def make() -> ir.Model:
        w = writer()
        x = w.conv(w.input(3), 8, bias=True)
        return w.model(w.conv(w.op(op_type, [x, *map(w.constant, constants)], 8, **attributes), 5))

    return make


def shared_weight() -> ir.Model:
    w = writer()
    first = w.conv(w.input(3), 8)
    x = w.relu(w.conv(w.relu(first), 8))
    again = w.op("Conv", [x, w.nodes[-2].input[1]], 8, pads=[1] * 4, kernel_shape=[3, 3])
    return w.model(w.conv(w.relu(again), 8, group=8))


def inner_output() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    return w.model(w.conv(x, 5), x)


def weight_is_an_output() -> ir.Model:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    return w.model(w.conv(x, 5), "w1")


def joined() -> ir.Model:
    w = writer()
    x = w.input(3)
    return w.model(w.conv(w.concat(w.conv(x, 4), w.conv(x, 4)), 5))


def captured() -> ir.Model:
    """What a branch of control flow reads is read by something."""
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    y = w.conv(x, 5)
    branches = {}
    for name, op_type in (("then_branch", "Sigmoid"), ("else_branch", "Tanh")):
        out = helper.make_tensor_value_info(name, w.tensor_type, None)
        branches[name] = helper.make_graph([helper.make_node(op_type, [x], [name])], name, [], [out])
    condition = w.constant(np.array(True))
    return w.model(y, w.op("If", [condition], 8, **branches))


def long_features() -> ir.Model:
    """Flattened before it is averaged: a column of the product is a pixel of a channel."""
    w = writer()
    x = w.op("Flatten", [w.relu(w.conv(w.input(3), 8))], 8 * 64)
    return w.model(dense(w, x, 5, "gemm_t"))


FIXED: dict[str, Make] = {
    "prelu": between("PRelu", np.full((8, 1, 1), 0.1)),
    "clip": between("Clip", np.array(0.0), np.array(6.0)),
    "sigmoid": between("Sigmoid"),
    "factor": between("Mul", np.array(2.0)),
    "offset": between("Add", np.ones((1, 8, 1, 1))),
    "transposed": between("Transpose", perm=[0, 1, 3, 2]),
    "output": inner_output,
    "weight is an output": weight_is_an_output,
    "concat": joined,
    "one channel for all": one_channel_for_all,
    "long features": long_features,
    "control flow": captured,
}


@pytest.mark.parametrize("name", FIXED)
def test_what_may_not_be_scaled_is_left_alone(name: str) -> None:
    assert channel_groups(canonical(FIXED[name]()).graph) == []


def test_layers_that_share_a_weight_are_left_alone() -> None:
    model = canonical(shared_weight())
    found = [{str(value.name) for value in group.values} for group in channel_groups(model.graph)]
    assert found == [] or all("conv_2" not in names for names in found)
    assert_same_bits(model, equalized(model, random_exponents(model)))


@pytest.mark.parametrize(
    "constants",
    [
        lambda w: w.op(
            "Gemm", [w.op("Flatten", ["x"], 3), w.constant(np.ones((192, 4))), w.constant(np.array(1.0))], 4
        ),
        lambda w: w.op("ReduceMean", [w.constant(np.ones((1, 4, 2, 2))), w.constant(np.array([2, 3]))], 4),
    ],
    ids=["scalar bias", "mean of a constant"],
)
def test_odd_forms_are_read(constants: Callable[[Writer], str]) -> None:
    w = writer()
    w.input(3)
    y = constants(w)
    model = canonical(w.model(w.conv(w.relu(w.conv("x", 8)), 5), y))
    assert len(channel_groups(model.graph)) == 1


# --- what is recorded and refused -----------------------------------------------------------------------------------


def test_nodes_say_by_how_much_their_output_is_scaled() -> None:
    model = canonical(residual())
    exponents = random_exponents(model)
    noted = {
        node.name: json.loads(node.metadata_props[EQUALIZED_KEY])
        for node in equalized(model, exponents).graph
        if EQUALIZED_KEY in node.metadata_props
    }
    tied = next(list(e) for e in exponents.values() if noted["n1"] == list(e))
    assert all(noted[name] == tied for name in ("n0", "n1", "n2", "n3", "n4"))
    assert "n9" not in noted


def test_exponents_of_another_model_are_refused() -> None:
    model = canonical(chain())
    name, found = next(iter(random_exponents(model).items()))
    for wrong in ({"nothing": found}, {name: found[:-1]}):
        with pytest.raises(InputError, match="calibrate this model"):
            equalize(model.graph, wrong)
