"""What the type of a graph cannot hold stays unfolded: nothing finite becomes infinite or NaN, nothing rounded away."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.fold import FoldResult, fold
from tests.fold.graphs import Array, Writer, evaluate, ops

# How large weights are, what they are multiplied or divided by, and what becomes of them.
CASES = [
    *((np.float16, *case) for case in ((5, "Mul", 6e4, "large"), (5, "Div", 1e-5, "large"))),
    *((np.float16, *case) for case in ((1e-2, "Mul", 1e-6, "small"), (1e-2, "Div", 6e4, "small"))),
    *((np.float32, *case) for case in ((5, "Mul", 3e38, "large"), (5, "Div", 1e-39, "large"))),
    *((np.float32, *case) for case in ((1e-10, "Mul", 1e-35, "small"), (1e-10, "Div", 1e38, "small"))),
    *((np.float64, *case) for case in ((5, "Mul", 1.7e308, "large"), (5, "Div", 1e-309, "large"))),
    *((np.float64, *case) for case in ((1e-10, "Mul", 1e-310, "small"), (1e-20, "Div", 1e305, "small"))),
]


def _scaled(dtype: type, size: float, op: str, scale: Array) -> FoldResult:
    """A convolution, then a scale a channel."""
    w = Writer(dtype=dtype)
    weight = size * w.rng.uniform(0.7, 1.3, (4, 3, 3, 3)) * w.rng.choice([-1, 1], (4, 3, 3, 3))
    x = w.op("Conv", [w.input(3), w.constant(weight)], 4, pads=[1] * 4)
    y = w.op(op, [x, w.constant(scale.reshape(1, 4, 1, 1))], 4)
    return fold(w.model(y))


def _weights(model: ir.Model) -> list[Array]:
    stored = [value.const_value for value in model.graph.initializers.values()]
    return [tensor.numpy().astype(np.float64) for tensor in stored if tensor is not None]


@pytest.mark.parametrize("channels", [slice(0, 4), slice(2, 3)])
@pytest.mark.parametrize(("dtype", "size", "op", "number", "word"), CASES)
def test_weights_out_of_range(dtype: type, size: float, op: str, number: float, word: str, channels: slice) -> None:
    scale = np.ones(4)
    scale[channels] = number
    result = _scaled(dtype, size, op, scale)
    assert all(np.isfinite(weight).all() for weight in _weights(result.model))
    assert ops(result.model) == {"Conv": 1, op: 1}
    assert [word in refused.reason for refused in result.refused] == [True]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scales_that_fit_are_folded_as_ever(dtype: type) -> None:
    result = _scaled(dtype, 0.2, "Mul", np.array([1e-2, 1.0, 100.0, 1000.0]))
    assert ops(result.model) == {"Conv": 1}
    assert not result.refused


def _norm(dtype: type, gamma: Sequence[float], mean: float, variance: float, epsilon: float) -> ir.Model:
    w = Writer(dtype=dtype)
    conv = w.conv(w.input(3), 4)
    parameters = [np.array(gamma), np.zeros(4), np.full(4, mean), np.array([1.0, variance, 1.0, 1.0])]
    inputs = [conv, *map(w.constant, parameters)]
    return w.model(w.relu(w.op("BatchNormalization", inputs, 4, epsilon=epsilon)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("gamma", "mean", "variance", "epsilon"),
    [
        ([1, 1, 1, 1], 0.0, 0.0, 0.0),
        ([1, 1, 1, 1], 0.0, -1e-3, 1e-5),
        ([1, 1, 1, 1], 0.0, float("nan"), 1e-5),
        ([1, float("inf"), 1, 1], 0.0, 1.0, 1e-5),
        ([0, 0, 0, 0], 0.0, 0.0, 0.0),
    ],
)
def test_batch_norms_without_a_finite_scale(
    dtype: type, gamma: list[float], mean: float, variance: float, epsilon: float
) -> None:
    model = _norm(dtype, gamma, mean, variance, epsilon)
    result = fold(model)
    assert ops(result.model) == {"Conv": 1, "BatchNormalization": 1, "Relu": 1}
    assert len(result.refused) == 1


def test_a_bias_out_of_range() -> None:
    """The scale fits, the mean times the scale does not."""
    result = fold(_norm(np.float16, [3000, 1, 1, 1], 100.0, 1.0, 1e-5))
    assert "large" in result.refused[0].reason
    assert ops(result.model)["BatchNormalization"] == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sums_out_of_range(dtype: type) -> None:
    """Each of two kernels over one input fits, their sum does not."""
    w = Writer(dtype=dtype)
    x, weight = w.input(3), np.full((4, 3, 1, 1), 0.7 * float(np.finfo(dtype).max))
    a, b = (w.op("Conv", [x, w.constant(weight)], 4) for _ in range(2))
    result = fold(w.model(w.relu(w.add(a, b))))
    assert all(np.isfinite(weight).all() for weight in _weights(result.model))
    assert ops(result.model)["Conv"] == 2


def test_the_rest_of_the_graph_folds() -> None:
    w = Writer(dtype=np.float16)
    x = w.bn(w.conv(w.input(3), 4))
    y = w.bn(w.conv(w.relu(w.op("Mul", [x, w.constant(np.full((1, 4, 1, 1), 60000.0))], 4)), 4))
    result = fold(w.model(y))
    assert ops(result.model) == {"Conv": 2, "Mul": 1, "Relu": 1}
    assert len(result.refused) == 1


def test_the_result_is_that_of_the_graph() -> None:
    """The original numbers are finite and stay so: inputs are as small as the scale is large."""
    w = Writer(dtype=np.float16)
    weight = np.zeros((4, 3, 3, 3))
    weight[:, 0, 1, 1] = 1.2
    x = w.op("Conv", [w.input(3), w.constant(weight)], 4, pads=[1] * 4)
    model = w.model(w.relu(w.op("Mul", [x, w.constant(np.full((1, 4, 1, 1), 1e4))], 4)))
    (a,), (b,) = evaluate(model), evaluate(fold(model).model)
    assert np.isfinite(a).all()
    np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=2e-2)


def test_bfloat16() -> None:
    """numpy has no such type: its weights are judged by its own range, not by that of another type of 16 bits."""
    for scale, kept in ((1e4, 0), (3e38, 1)):
        arrays = {"w": np.full((4, 3, 1, 1), 3.0), "s": np.full((1, 4, 1, 1), scale)}
        tensors = [numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), name) for name, array in arrays.items()]
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Mul", ["c", "s"], ["y"])]
        x, y = (helper.make_tensor_value_info(n, TensorProto.BFLOAT16, ["N", c, 8, 8]) for n, c in (("x", 3), ("y", 4)))
        proto = helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 22)], ir_version=10
        )
        result = fold(ir.from_proto(proto))
        assert ops(result.model)["Mul"] == kept
        assert len(result.refused) == kept
        assert all(np.isfinite(weight).all() for weight in _weights(result.model))
