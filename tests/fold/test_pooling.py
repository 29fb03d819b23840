"""An average pool is a convolution where every window averages as many numbers; it is read as one only for free."""

from __future__ import annotations

import numpy as np
import pytest

from rir_deploy.fold import fold
from tests.fold.graphs import Writer, check, ops, relative_error

SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _pool(w: Writer, x: str, **attributes: object) -> str:
    return w.op("AveragePool", [x], w.channels[x], **attributes)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pool_beside_a_convolution_is_part_of_it(stride: int, size: int) -> None:
    """The average branch of a Diverse Branch Block: 1x1, pool, batch norm."""
    w = Writer()
    x = w.input(3, ("h", "w"))
    s = {"strides": [stride, stride]}
    averaged = w.bn(_pool(w, w.conv(x, 4, 1), count_include_pad=1, **SAME, **s))
    y = w.add(w.bn(w.conv(x, 4, 3, **s)), averaged, w.bn(w.conv(x, 4, 1, **s)))
    assert ops(check(w.model(w.relu(y)), size=size)) == {"Conv": 1, "Relu": 1}


def test_the_order_of_the_branches_does_not_matter() -> None:
    w = Writer()
    x = w.input(3)
    averaged = w.bn(_pool(w, w.conv(x, 3, 1), count_include_pad=1, **SAME))
    assert ops(check(w.model(w.relu(w.add(averaged, x, w.conv(x, 3, 1), w.conv(x, 3)))))) == {"Conv": 1, "Relu": 1}


def test_a_pool_that_does_not_count_its_padding_stays() -> None:
    """At the border it divides by fewer: no convolution does that."""
    w = Writer()
    x = w.input(3, (5, 5))
    model = w.model(w.relu(w.add(w.conv(x, 3), _pool(w, x, count_include_pad=0, **SAME))))
    folded = check(model)
    assert ops(folded)["AveragePool"] == 1
    naive = Writer()
    x = naive.input(3, (5, 5))
    counted = naive.model(naive.relu(naive.add(naive.conv(x, 3), _pool(naive, x, count_include_pad=1, **SAME))))
    assert relative_error(model, fold(counted).model) > 1e-3


def test_a_bias_before_a_padded_pool_stays() -> None:
    """The pool reads zeros beyond the border, not the bias."""
    w = Writer()
    x = w.input(3)
    averaged = _pool(w, w.bn(w.conv(x, 4, 1)), count_include_pad=1, **SAME)
    assert ops(check(w.model(w.relu(w.add(w.conv(x, 4), averaged))))) == {
        "Conv": 2,
        "AveragePool": 1,
        "Add": 1,
        "Relu": 1,
    }


def test_a_bias_before_an_unpadded_pool_folds() -> None:
    w = Writer()
    x = w.input(3)
    averaged = _pool(w, w.bn(w.conv(x, 4, 1)), kernel_shape=[3, 3])
    assert ops(check(w.model(w.relu(w.add(w.conv(x, 4, pads=[0] * 4), averaged))))) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("attributes", [{"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}])
def test_windows_of_unequal_size_stay(attributes: dict[str, object]) -> None:
    w = Writer()
    x = w.input(3, (8, 8))
    if "auto_pad" in attributes:
        pool, conv = _pool(w, x, kernel_shape=[3, 3], **attributes), w.conv(x, 3)
    else:
        pool = _pool(w, x, kernel_shape=[3, 3], strides=[2, 2], pads=[0] * 4, **attributes)
        conv = w.conv(x, 3, strides=[2, 2], pads=[0, 0, 1, 1])
    assert ops(check(w.model(w.relu(w.add(conv, pool)))))["AveragePool"] == 1


def test_a_pool_alone_remains_a_pool() -> None:
    w = Writer()
    x = w.input(3)
    y = w.relu(w.bn(w.conv(x, 4)))
    pooled = _pool(w, y, kernel_shape=[2, 2], strides=[2, 2])
    head = _pool(w, w.bn(w.conv(w.relu(w.bn(w.conv(pooled, 4))), 5, 1)), kernel_shape=[4, 4])
    assert ops(check(w.model(head))) == {"Conv": 3, "Relu": 2, "AveragePool": 2}


def test_a_pool_beside_a_smaller_kernel_remains_a_pool() -> None:
    """A 3x3 kernel for a 1x1 and a pool would cost nine times the 1x1."""
    w = Writer()
    x = w.input(3)
    y = w.add(w.conv(x, 4, 1), _pool(w, w.conv(x, 4, 1), count_include_pad=1, **SAME))
    assert ops(check(w.model(w.relu(y)))) == {"Conv": 2, "AveragePool": 1, "Add": 1, "Relu": 1}


def test_a_pool_that_others_read_too_is_still_there() -> None:
    w = Writer()
    x = w.input(3)
    averaged = _pool(w, x, count_include_pad=1, **SAME)
    folded = check(w.model(w.relu(w.add(w.conv(x, 3), averaged)), w.relu(averaged)))
    assert ops(folded) == {"Conv": 1, "Relu": 2, "AveragePool": 1}


def test_a_depthwise_convolution_takes_a_pool_in() -> None:
    w = Writer()
    x = w.input(4)
    averaged = _pool(w, w.scale(x, 0.5), count_include_pad=1, **SAME)
    assert ops(check(w.model(w.relu(w.add(w.conv(x, 4, group=4), averaged))))) == {"Conv": 1, "Relu": 1}


def test_a_bottleneck_beside_a_convolution_is_part_of_it() -> None:
    """1x1 to two channels, then 3x3: composed alone it would cost more, beside a 3x3 it costs nothing."""
    w = Writer()
    x = w.input(8)
    y = w.add(w.conv(x, 8), w.conv(w.conv(x, 2, 1), 8))
    result = fold(w.model(w.relu(y)))
    assert ops(result.model) == {"Conv": 1, "Relu": 1}
    assert result.after.macs < result.before.macs


def test_pooling_weights() -> None:
    """Against the average written out: a Dirac and a pool of one channel."""
    w = Writer()
    x = w.input(1)
    delta = np.zeros((1, 1, 3, 3))
    delta[0, 0, 1, 1] = 1.0
    centre = w.op("Conv", [x, w.constant(delta)], 1, **SAME)
    folded = check(w.model(w.relu(w.add(centre, _pool(w, x, count_include_pad=1, **SAME)))))
    (conv,) = [node for node in folded.graph if node.op_type == "Conv"]
    np.testing.assert_allclose(conv.inputs[1].const_value.numpy(), delta + 1 / 9)  # type: ignore[union-attr]
