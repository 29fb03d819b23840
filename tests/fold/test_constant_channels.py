"""Channels that read nothing but zeros, through every op that the fold takes as pointwise: f(0) decides, not a list."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.fold.graphs import Writer, check, ops

CASES: list[tuple[str, dict[str, float], tuple[float | None, ...]]] = [
    *(("Clip", {}, bounds) for bounds in itertools.product((None, -2.0, 0.0, 0.5), (None, -0.5, 0.0, 2.0))),
    *(("ThresholdedRelu", {"alpha": alpha}, ()) for alpha in (-1.0, -0.001, 0.0, 0.25, 1.0)),
    *(("HardSigmoid", {"alpha": a, "beta": b}, ()) for a, b in itertools.product((-0.2, 0.0, 0.2), (-0.5, 0.0, 0.5))),
    *(("LeakyRelu", {"alpha": alpha}, ()) for alpha in (-0.5, 0.0, 0.1)),
    *(("Elu", {"alpha": alpha}, ()) for alpha in (-1.0, 1.0)),
    ("Selu", {"alpha": 1.5, "gamma": 1.1}, ()),
    *((op, {}, ()) for op in ("Abs", "Erf", "Exp", "Gelu", "HardSwish", "Mish", "Relu", "Sigmoid", "Softplus")),
    *((op, {}, ()) for op in ("Softsign", "Tanh")),
]
KEEPS_ZERO = {"Abs", "Elu", "Erf", "Gelu", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu", "Softsign", "Tanh"}


def _pointwise(w: Writer, x: str, op: str, attributes: dict[str, float], bounds: tuple[float | None, ...]) -> str:
    inputs = [x, *("" if bound is None else w.constant(np.array(bound)) for bound in bounds)]
    return w.op(op, inputs, w.channels[x], **attributes)


@pytest.mark.parametrize(("op", "attributes", "bounds"), CASES)
def test_a_row_of_zeros(op: str, attributes: dict[str, float], bounds: tuple[float | None, ...]) -> None:
    """With and without a bias, which is then all that the op sees."""
    w = Writer(opset=20)
    weight = w.rng.standard_normal((5, 3, 1, 1))
    weight[1:4] = 0
    bias = np.array([0.3, 0.0, 0.7, -0.7, -0.2])
    x = w.op("Conv", [w.input(3), w.constant(weight), w.constant(bias)], 5)
    model = w.model(w.conv(_pointwise(w, x, op, attributes, bounds), 2, 1))
    result = check(model)
    if op in KEEPS_ZERO:
        assert min(value.const_value.shape[0] for value in result.graph.initializers.values() if value.const_value) < 5


@pytest.mark.parametrize(("op", "attributes", "bounds"), CASES)
def test_a_row_that_never_rises(op: str, attributes: dict[str, float], bounds: tuple[float | None, ...]) -> None:
    """Weights of at most zero over a relu: the op reads numbers from the bias downwards."""
    w = Writer(opset=20)
    weight = w.rng.standard_normal((6, 3, 1, 1))
    weight[1:] = -np.abs(weight[1:])
    bias = np.array([0.3, 0.0, 0.2, -0.2, -1.5, -3.5])
    x = w.op("Conv", [w.relu(w.input(3)), w.constant(weight), w.constant(bias)], 6)
    check(w.model(w.conv(_pointwise(w, x, op, attributes, bounds), 2, 1)))


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (-2.0, -0.5), (1.0, -1.0), (0.0, 2.0), (-1.0, 1.0)])
def test_what_follows_a_clip_is_not_taken_for_positive(bounds: tuple[float, float]) -> None:
    """A convolution of weights of at most zero over a clip; where the clip gives negative numbers, it may rise."""
    w = Writer()
    x = _pointwise(w, w.conv(w.input(3), 4, 1), "Clip", {}, bounds)
    weight = -np.abs(w.rng.standard_normal((4, 4, 1, 1)))
    y = w.relu(w.op("Conv", [x, w.constant(weight), w.constant(np.full(4, -0.1))], 4))
    check(w.model(w.conv(y, 2, 1)))


@pytest.mark.parametrize("opset", [11, 12, 13, 18, 20])
@pytest.mark.parametrize("op", ["Clip", "ThresholdedRelu", "HardSigmoid", "Softplus", "Relu"])
def test_in_every_opset(op: str, opset: int) -> None:
    w = Writer(opset=opset)
    weight = w.rng.standard_normal((4, 3, 1, 1))
    weight[2] = 0
    x = w.op("Conv", [w.input(3), w.constant(weight)], 4)
    y = _pointwise(w, x, op, {}, (0.5, 6.0) if op == "Clip" else ())
    assert ops(check(w.model(w.conv(y, 2, 1))))[op] == 1
