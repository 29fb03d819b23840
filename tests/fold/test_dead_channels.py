"""Channels that are zero for every input, or that nothing reads, go away with the weights around them; nothing else."""

from __future__ import annotations

import dataclasses

import hypothesis
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.fold import FoldResult, fold
from rir_deploy.fold.members import read_members
from tests.fold.family import Family, build, families
from tests.fold.graphs import Array, Writer, ops, relative_error


def _check(model: ir.Model) -> FoldResult:
    result = fold(model)
    assert relative_error(model, result.model) < 1e-9
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    assert not fold(result.model).modified
    return result


def _shapes(model: ir.Model) -> list[list[int]]:
    """Rows and columns of every convolution."""
    return [list(n.inputs[1].shape.numpy()[:2]) for n in model.graph if n.op_type == "Conv"]  # type: ignore[union-attr]


def _conv(w: Writer, x: str, rows: int, dead: dict[int, float], k: int = 3) -> str:
    """A convolution with rows of zeros, and the given biases there."""
    weight = w.rng.standard_normal((rows, w.channels[x], k, k))
    bias = w.rng.standard_normal(rows)
    for row, value in dead.items():
        weight[row], bias[row] = 0.0, value
    return w.op("Conv", [x, w.constant(weight), w.constant(bias)], rows, kernel_shape=[k, k], pads=[k // 2] * 4)


def test_a_dead_row_goes_with_the_columns_that_read_it() -> None:
    w = Writer()
    hidden = w.relu(_conv(w, w.input(3), 6, {1: -0.5, 4: 0.0}))
    result = _check(w.model(w.relu(w.conv(hidden, 5))))
    assert _shapes(result.model) == [[4, 3], [5, 4]]
    assert result.dead_channels == 2
    relu = next(node for node in result.model.graph if node.op_type == "Relu")
    assert read_members(relu) == [(hidden, 0, 1), (hidden, 2, 4), (hidden, 5, 6)]


def test_death_spreads() -> None:
    """Rows that read only dead channels die too, as far as their biases let them."""
    w = Writer()
    first = w.relu(_conv(w, w.input(3), 4, {0: -1.0, 1: -1.0}))
    weight = w.rng.standard_normal((4, 4, 1, 1))
    weight[2:, 2:] = 0.0
    second = w.relu(w.op("Conv", [first, w.constant(weight), w.constant(np.array([1.0, 1.0, -1.0, 1.0]))], 4))
    result = _check(w.model(w.conv(second, 3)))
    # Row 2 is always zero; row 3 is always one, which a padded convolution does not read as a constant.
    assert _shapes(result.model) == [[2, 3], [3, 2], [3, 3]]


@pytest.mark.parametrize(
    ("op", "attributes", "bias", "dies"),
    [
        ("Relu", {}, 0.5, False),
        ("LeakyRelu", {"alpha": 0.1}, 0.0, True),
        ("LeakyRelu", {"alpha": 0.1}, -0.5, False),
        ("HardSwish", {}, -3.0, True),
        ("HardSwish", {}, -2.9, False),
        ("HardSigmoid", {}, -2.5, True),
        ("HardSigmoid", {}, 0.0, False),
        ("ThresholdedRelu", {"alpha": 0.5}, 0.5, True),
        ("Tanh", {}, 0.0, True),
        ("Sigmoid", {}, 0.0, False),
        ("Softplus", {}, -1.0, False),
    ],
)
def test_what_an_op_makes_of_a_constant(op: str, attributes: dict[str, float], bias: float, dies: bool) -> None:
    w = Writer()
    hidden = w.op(op, [_conv(w, w.input(3), 4, {2: bias})], 4, **attributes)
    model = w.model(w.relu(w.bn(w.conv(hidden, 3))))
    assert _shapes(_check(model).model)[0] == [3 if dies else 4, 3]


@pytest.mark.parametrize(("low", "bias", "dies"), [(0.0, -1.0, True), (0.1, -1.0, False), (-1.0, 0.0, True)])
def test_clips(low: float, bias: float, dies: bool) -> None:
    w = Writer()
    bounds = [w.constant(np.array(low)), w.constant(np.array(6.0))]
    hidden = w.op("Clip", [_conv(w, w.input(3), 4, {2: bias}), *bounds], 4)
    assert _shapes(_check(w.model(w.relu(w.bn(w.conv(hidden, 3))))).model)[0] == [3 if dies else 4, 3]


def test_a_channel_pushed_down_for_good_is_dead() -> None:
    """No positive weight over what a relu made, and no positive bias. Over the input the same weights say nothing."""
    w = Writer()
    x = w.input(3)
    falling = -np.abs(w.rng.standard_normal((4, 3, 3, 3)))
    falling[0] *= -1.0
    at = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    first = w.relu(w.op("Conv", [x, w.constant(falling)], 4, **at))
    second = w.relu(w.op("Conv", [first, w.constant(-np.abs(w.rng.standard_normal((4, 4, 3, 3))))], 4, **at))
    third = w.conv(w.concat(first, second), 3)
    result = _check(w.model(w.relu(third)))
    assert _shapes(result.model) == [[4, 3], [3, 4]]


def test_channels_that_no_weight_reads() -> None:
    w = Writer()
    hidden = w.relu(w.bn(w.conv(w.input(3), 5)))
    weight = w.rng.standard_normal((4, 5, 3, 3))
    weight[:, [0, 3]] = 0.0
    y = w.op("Conv", [hidden, w.constant(weight)], 4, kernel_shape=[3, 3], pads=[1] * 4)
    assert _shapes(_check(w.model(y)).model) == [[3, 3], [4, 3]]


def test_outputs_and_readers_outside_the_fold_keep_their_shape() -> None:
    w = Writer()
    hidden = w.relu(_conv(w, w.input(3), 4, {1: -1.0}))
    flat = w.op("Flatten", [w.op("GlobalAveragePool", [w.relu(_conv(w, hidden, 5, {0: -1.0}))], 5)], 5)
    result = _check(w.model(flat))
    assert _shapes(result.model) == [[3, 3], [5, 3]]
    w = Writer()
    hidden = w.relu(w.bn(_conv(w, w.input(3), 4, {1: -100.0})))
    model = w.model(hidden, w.conv(hidden, 3))
    assert _shapes(_check(model).model) == [[4, 3], [3, 4]]


def test_a_depthwise_convolution_loses_row_and_column_together() -> None:
    w = Writer()
    hidden = w.relu(_conv(w, w.input(3), 4, {1: -1.0}))
    weight = w.rng.standard_normal((4, 1, 3, 3))
    bias = np.array([1.0, -1.0, 1.0, 1.0])
    deep = w.op("Conv", [hidden, w.constant(weight), w.constant(bias)], 4, group=4, kernel_shape=[3, 3], pads=[1] * 4)
    result = _check(w.model(w.conv(w.relu(deep), 2, 1)))
    assert _shapes(result.model) == [[3, 3], [3, 1], [2, 3]]
    assert [n.attributes["group"].value for n in result.model.graph if n.op_type == "Conv"] == [1, 3, 1]


def test_a_grouped_convolution_loses_whole_groups_only() -> None:
    w = Writer()
    hidden = w.relu(_conv(w, w.input(3), 8, {0: -1.0, 1: -1.0, 2: -1.0}))
    deep = w.relu(w.op("Conv", [hidden, w.constant(w.rng.uniform(0.5, 1.0, (8, 2, 1, 1)))], 8, group=4))
    result = _check(w.model(w.conv(deep, 2, 1)))
    assert _shapes(result.model) == [[6, 3], [6, 2], [2, 6]]


def test_the_last_group_of_a_grouped_convolution_is_dense() -> None:
    w = Writer()
    hidden = w.relu(_conv(w, w.input(3), 4, {0: -1.0, 1: -1.0, 2: -1.0}))
    deep = w.relu(w.op("Conv", [hidden, w.constant(w.rng.uniform(0.5, 1.0, (4, 2, 1, 1)))], 4, group=2))
    result = _check(w.model(w.conv(deep, 2, 3)))
    assert _shapes(result.model) == [[1, 3], [2, 1], [2, 2]]


def test_a_shortcut_keeps_what_the_branch_lost() -> None:
    """The branch's channel is dead, the sum's is not."""
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    inner = w.relu(w.conv(x, 4))
    y = w.relu(w.add(_conv(w, inner, 4, {1: -0.1}), x))
    result = _check(w.model(w.relu(w.bn(w.conv(y, 3)))))
    assert _shapes(result.model) == [[4, 3], [4, 4], [4, 4], [3, 4]]


def test_a_tensor_of_dead_channels_only() -> None:
    w = Writer()
    x = w.input(3)
    alive, dead = w.relu(w.conv(x, 4)), w.relu(_conv(w, x, 2, {0: -1.0, 1: 0.0}))
    result = _check(w.model(w.relu(w.add(w.conv(alive, 3), w.conv(dead, 3)))))
    assert ops(result.model) == {"Conv": 2, "Relu": 2}
    w = Writer()
    dead = w.relu(_conv(w, w.input(3), 2, {0: -1.0, 1: 0.0}))
    result = _check(w.model(w.relu(w.conv(dead, 3, bias=True))))
    assert _shapes(result.model) == [[1, 3], [3, 1]]


def test_weights_that_vanish_when_they_are_stored_are_zeros() -> None:
    w = Writer(dtype=np.float16)
    x = w.input(3)
    conv = w.conv(x, 4)
    parameters = [np.array([1.0, 1e-7, 1.0, 1.0]), np.array([0.0, -1.0, 0.0, 0.0]), np.zeros(4), np.full(4, 100.0)]
    y = w.relu(w.conv(w.relu(w.op("BatchNormalization", [conv, *map(w.constant, parameters)], 4)), 3))
    result = fold(w.model(y))
    assert _shapes(result.model)[0] == [3, 3]
    assert not fold(result.model).modified


@hypothesis.settings(max_examples=60, deadline=None)
@given(families(), st.randoms(use_true_random=False))
def test_injected_dead_channels(family: Family, random: object) -> None:
    family = dataclasses.replace(family, norm="joined" if family.joined else "streams")
    model = build(family)
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    for node in norms[:-1]:
        gamma, beta = (_array(value) for value in node.inputs[1:3])
        dead = rng.random(gamma.size) < 0.4
        resting = 0.0 if family.activation == "LeakyRelu" else -3.5
        _set(node.inputs[1], np.where(dead, 0.0, gamma))
        _set(node.inputs[2], np.where(dead, resting, beta))
        mean = _array(node.inputs[3])
        _set(node.inputs[3], np.where(dead, 0.0, mean))
    result = _check(model)
    if family.outer == "none":
        _assert_nothing_dead(result.model)


def _assert_nothing_dead(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Conv" and (reader := node.outputs[0].uses()) and reader[0][0].op_type == "Relu":
            weight = _array(node.inputs[1])
            bias = _array(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight))
            dead = ~weight.reshape(len(weight), -1).any(axis=1) & (bias <= 0)
            assert not dead.any() or len(weight) == 1


def _array(value: ir.Value | None) -> Array:
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _set(value: ir.Value | None, array: Array) -> None:
    assert value is not None
    value.const_value = ir.tensor(array, name=value.name)
