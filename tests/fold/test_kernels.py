"""Each kernel operation against a convolution written out as loops."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rir_deploy.fold import algebra, kernels
from rir_deploy.fold.kernels import Array, Kernel


def apply(kernel: Kernel, x: Array) -> Array:
    """The definition in the module's docstring, place by place; x is [cols, H, W]."""
    rows, per_row, per_col = kernel.rows, kernel.rows // kernel.groups, kernel.cols // kernel.groups
    size = [
        (length + growth - 1) // stride + 1
        for length, growth, stride in zip(x.shape[1:], kernel.growth, kernel.strides, strict=True)
    ]
    out = np.zeros((rows, *size))
    for row, i, j in itertools.product(range(rows), range(size[0]), range(size[1])):
        first = row // per_row * per_col
        for col, a, b in itertools.product(range(per_col), range(kernel.taps[0]), range(kernel.taps[1])):
            place = [
                s * y + o + d * t
                for s, y, o, d, t in zip(kernel.strides, (i, j), kernel.offsets, kernel.dilations, (a, b), strict=True)
            ]
            if 0 <= place[0] < x.shape[1] and 0 <= place[1] < x.shape[2]:
                out[row, i, j] += kernel.weight[row, col, a, b] * x[first + col, place[0], place[1]]
    return out


@st.composite
def random_kernels(draw: st.DrawFn, cols: int | None = None, rows: int | None = None, groups: int = 1) -> Kernel:
    rows = rows or draw(st.integers(1, 3))
    cols = cols or draw(st.integers(1, 3))
    taps = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    seed = draw(st.integers(0, 999))
    weight = np.random.default_rng(seed).standard_normal((rows * groups, cols, *taps))
    return kernels.convolution(weight, strides, pads, dilations, groups)


def image(cols: int, size: tuple[int, int] = (7, 6)) -> Array:
    return np.random.default_rng(3).standard_normal((cols, *size))


@settings(max_examples=60, deadline=None)
@given(random_kernels(), st.data())
def test_add(a: Kernel, data: st.DataObject) -> None:
    b = data.draw(random_kernels(cols=a.cols, rows=a.rows))
    b = replace(b, strides=a.strides, growth=a.growth)
    total = algebra.add(a, b)
    assume(total is not None)
    assert total is not None
    np.testing.assert_allclose(
        apply(total, image(a.cols)), apply(a, image(a.cols)) + apply(b, image(a.cols)), atol=1e-12
    )
    assert total.macs <= a.macs + b.macs


@settings(max_examples=100, deadline=None)
@given(random_kernels(), st.data())
def test_compose(inner: Kernel, data: st.DataObject) -> None:
    outer = data.draw(random_kernels(cols=inner.rows))
    composed = algebra.compose(outer, inner)
    assume(composed is not None)
    assert composed is not None
    x = image(inner.cols)
    middle = apply(inner, x)
    assume(min(middle.shape) > 0)
    assume(all(length + growth > 0 for length, growth in zip(middle.shape[1:], outer.growth, strict=True)))
    np.testing.assert_allclose(apply(composed, x), apply(outer, middle), atol=1e-12)
    assert algebra.composed_macs(outer, inner) == composed.macs


def test_compose_refuses_what_is_not_exact_at_the_border() -> None:
    """A padded 3x3 after a padded 3x3 reads zeros where one 5x5 would read values that the first one computed."""
    weight = np.ones((1, 1, 3, 3))
    padded = kernels.convolution(weight, (1, 1), (1, 1, 1, 1), (1, 1), 1)
    assert algebra.compose(padded, padded) is None
    naive = kernels.convolution(np.ones((1, 1, 5, 5)), (1, 1), (2, 2, 2, 2), (1, 1), 1)
    x = np.ones((1, 6, 6))
    assert not np.allclose(apply(naive, x), apply(padded, apply(padded, x)))


def test_compose_refuses_padding_after_a_crop() -> None:
    crop = kernels.shift(1, (-1, -1), (-1, -1))
    padded = kernels.convolution(np.ones((1, 1, 3, 3)), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    assert algebra.compose(padded, crop) is None


@pytest.mark.parametrize("steps", [(1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("size", [(7, 6), (8, 8), (5, 9)])
def test_subsample_is_a_strided_slice(steps: tuple[int, int], size: tuple[int, int]) -> None:
    x = image(2, size)
    np.testing.assert_array_equal(apply(kernels.subsample(2, steps), x), x[:, :: steps[0], :: steps[1]])


def test_shift_is_zero_padding_and_cropping() -> None:
    x = image(2)
    np.testing.assert_array_equal(apply(kernels.shift(2, (1, 0), (2, 3)), x), np.pad(x, ((0, 0), (1, 2), (0, 3))))
    np.testing.assert_array_equal(apply(kernels.shift(2, (-1, 0), (0, -2)), x), x[:, 1:, :-2])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.data())
def test_regroup_and_parts(groups: int, data: st.DataObject) -> None:
    kernel = data.draw(random_kernels(groups=groups))
    x = image(kernel.cols)
    whole = apply(kernel, x)
    np.testing.assert_allclose(apply(kernels.regroup(kernel, 1), x), whole, atol=1e-12)
    start = data.draw(st.integers(0, kernel.rows - 1))
    stop = data.draw(st.integers(start + 1, kernel.rows))
    part, first, last = kernels.take_rows(kernel, start, stop)
    np.testing.assert_allclose(apply(part, x[first:last]), whole[start:stop], atol=1e-12)


def test_columns_of_a_grouped_kernel_reach_only_their_rows() -> None:
    kernel = kernels.diagonal(np.array([1.0, 2.0, 3.0]), 2)
    taken = kernels.take_columns(kernel, 1, 3)
    assert taken is not None
    part, first, last = taken
    assert (first, last) == (1, 3)
    np.testing.assert_array_equal(part.weight.reshape(-1), [2.0, 3.0])
    straddling = kernels.convolution(np.ones((2, 2, 1, 1)), (1, 1), (0,) * 4, (1, 1), 2)
    assert kernels.take_columns(straddling, 1, 4) is None


def test_apply_to_bias() -> None:
    kernel = kernels.convolution(image(6).reshape(2, 3, 7, 6)[:, :, :2, :2], (1, 1), (0,) * 4, (1, 1), 1)
    bias = np.array([1.0, -2.0, 0.5])
    flat = apply(kernel, np.broadcast_to(bias[:, None, None], (3, 5, 5)))
    np.testing.assert_allclose(algebra.apply_to_bias(kernel, bias), flat[:, 0, 0], atol=1e-12)


def test_adding_a_selection_never_grows_a_kernel() -> None:
    """A 1x1 kernel and an identity two places away: one 3-tap kernel would cost three times as much."""
    one = kernels.convolution(np.ones((1, 1, 1, 1)) * 0.5, (1, 1), (1, 0, 1, 0), (1, 1), 1)
    assert algebra.add(one, kernels.shift(1, (-1, 0), (3, 0))) is None
