"""The algebra of convolution kernels: numpy only, no graph in sight.

A kernel maps a source x of ``cols`` channels to ``rows`` channels. On every spatial axis

    out[y] = sum_i  weight[..., i] * x[stride * y + offset + dilation * i]        (x is zero outside its border)
    len(out) = floor((len(x) + growth - 1) / stride) + 1

``offset`` is minus the padding before, and ``growth`` is what the padding adds less what the window takes. Both stay
the same when a kernel is put into a larger box of taps, which is what makes a 1x1 kernel and a 3x3 kernel addable.
All arithmetic is float64; the caller casts once at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axes = tuple[int, ...]

# The name of a branch that is no convolution: an identity, a batch norm alone, an average pool.
SHORTCUT = ""


@dataclass(frozen=True, eq=False)
class Kernel:
    """``weight`` is float64 [rows, cols / groups, *taps]; the fields after it have one entry a spatial axis.

    ``branches`` names what went into it: the convolutions it was made of, and `SHORTCUT` for anything else that was
    added to them. No arithmetic depends on it.
    """

    weight: Array
    strides: Axes
    growth: Axes
    offsets: Axes
    dilations: Axes
    groups: int = 1
    branches: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def cols(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    @property
    def taps(self) -> Axes:
        return self.weight.shape[2:]

    @property
    def macs(self) -> int:
        """Multiply-adds for one output position; also the number of stored weights."""
        return self.weight.size

    @property
    def pads(self) -> tuple[Axes, Axes]:
        """Zero padding (before, after) on every axis; negative where the kernel crops."""
        before = tuple(-offset for offset in self.offsets)
        after = tuple(
            growth + dilation * (tap - 1) - pad
            for growth, dilation, tap, pad in zip(self.growth, self.dilations, self.taps, before, strict=True)
        )
        return before, after

    @property
    def is_padded(self) -> bool:
        return any(pad > 0 for side in self.pads for pad in side)

    @property
    def is_single_tap(self) -> bool:
        return all(tap == 1 for tap in self.taps)

    @property
    def is_pointwise(self) -> bool:
        """A 1x1 kernel that neither strides, pads nor crops."""
        still = all(
            s == 1 and g == 0 and o == 0 for s, g, o in zip(self.strides, self.growth, self.offsets, strict=True)
        )
        return self.is_single_tap and still

    @property
    def is_diagonal(self) -> bool:
        """Every row reads its own column and nothing else, at one tap."""
        return self.is_single_tap and self.groups == self.rows == self.cols

    @cached_property
    def is_selection(self) -> bool:
        """Diagonal with ones: it only picks positions, and costs no multiply-add."""
        return self.is_diagonal and bool(np.all(self.weight == 1.0))

    @cached_property
    def row_sums(self) -> Array:
        """The sum of the magnitudes of every row's weights, [rows]."""
        sums: Array = np.abs(self.weight).reshape(self.rows, -1).sum(axis=1)
        return sums

    @property
    def is_identity(self) -> bool:
        return self.is_pointwise and self.is_selection

    @property
    def is_dense(self) -> bool:
        """Whether rows of several such kernels can be stacked into one convolution."""
        return self.groups == 1 and not self.is_selection

    @property
    def box(self) -> tuple[Axes, Axes, Axes]:
        return self.offsets, self.taps, self.dilations


def convolution(weight: Array, strides: Axes, pads: Axes, dilations: Axes, groups: int) -> Kernel:
    """The kernel of an ONNX Conv: weight [M, C / groups, *k], pads [begin..., end...]."""
    axes = weight.ndim - 2
    taps = weight.shape[2:]
    before, after = pads[:axes], pads[axes:]
    growth = tuple(b + a - d * (t - 1) for b, a, d, t in zip(before, after, dilations, taps, strict=True))
    return Kernel(weight, strides, growth, tuple(-b for b in before), canonical_dilations(dilations, taps), groups)


def canonical_dilations(dilations: Axes, taps: Axes) -> Axes:
    """1 where there is one tap, which nothing can spread: equal kernels have equal boxes."""
    return tuple(d if tap > 1 else 1 for d, tap in zip(dilations, taps, strict=True))


def diagonal(scale: Array, axes: int) -> Kernel:
    """out = scale * x, channel by channel; scale is [channels]."""
    weight = scale.reshape((-1, 1) + (1,) * axes)
    return Kernel(weight, (1,) * axes, (0,) * axes, (0,) * axes, (1,) * axes, groups=len(scale))


def subsample(channels: int, steps: Axes) -> Kernel:
    """out = x[..., ::step] on every axis: a strided Dirac."""
    return replace(diagonal(np.ones(channels), len(steps)), strides=steps)


def shift(channels: int, before: Axes, after: Axes) -> Kernel:
    """Zero padding as a kernel of one tap; negative amounts crop."""
    growth = tuple(b + a for b, a in zip(before, after, strict=True))
    return replace(diagonal(np.ones(channels), len(before)), growth=growth, offsets=tuple(-b for b in before))


def scale_rows(kernel: Kernel, scale: Array) -> Kernel:
    return replace(kernel, weight=kernel.weight * scale.reshape((-1,) + (1,) * (kernel.weight.ndim - 1)))


def regroup(kernel: Kernel, groups: int) -> Kernel:
    """The same map with fewer groups (``groups`` divides ``kernel.groups``); the new blocks are filled with zeros."""
    if groups == kernel.groups:
        return kernel
    per = kernel.groups // groups
    rows, cols = kernel.rows // kernel.groups, kernel.cols // kernel.groups
    blocks = kernel.weight.reshape(groups, per, rows, cols, *kernel.taps)
    weight = np.zeros((groups, per, rows, per, cols, *kernel.taps))
    index = np.arange(per)
    weight[:, index, :, index] = np.moveaxis(blocks, 1, 0)
    return replace(kernel, weight=weight.reshape(kernel.rows, per * cols, *kernel.taps), groups=groups)


def take_rows(kernel: Kernel, start: int, stop: int) -> tuple[Kernel, int, int]:
    """Rows start:stop, and the range of columns they read: (kernel over that range, first column, last column + 1)."""
    if kernel.groups > 1 and start % (rows := kernel.rows // kernel.groups) == 0 and stop % rows == 0:
        cols = kernel.cols // kernel.groups
        first, last = start // rows, stop // rows
        part = replace(kernel, weight=kernel.weight[start:stop], groups=last - first)
        return part, first * cols, last * cols
    rows, cols = kernel.rows // kernel.groups, kernel.cols // kernel.groups
    group = start // rows
    if stop <= (group + 1) * rows:
        return replace(kernel, weight=kernel.weight[start:stop], groups=1), group * cols, (group + 1) * cols
    dense = regroup(kernel, 1)
    return replace(dense, weight=dense.weight[start:stop]), 0, kernel.cols


def take_columns(kernel: Kernel, start: int, stop: int) -> tuple[Kernel, int, int] | None:
    """Columns start:stop, and the range of rows they reach: (kernel of those rows, first row, last row + 1).

    None where a group straddles the cut, so that rows outside the range would be reached too.
    """
    if kernel.groups == 1:
        return replace(kernel, weight=kernel.weight[:, start:stop]), 0, kernel.rows
    rows, cols = kernel.rows // kernel.groups, kernel.cols // kernel.groups
    if start % cols or stop % cols:
        return None
    first, last = start // cols, stop // cols
    part = replace(kernel, weight=kernel.weight[first * rows : last * rows], groups=last - first)
    return part, first * rows, last * rows
