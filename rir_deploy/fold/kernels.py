"""The algebra of convolution kernels: numpy only, no graph in sight.

A kernel maps a source x of ``cols`` channels to ``rows`` channels. On every spatial axis

    out[y] = sum_i  weight[..., i] * x[stride * y + offset + dilation * i]        (x is zero outside its border)
    len(out) = floor((len(x) + growth - 1) / stride) + 1

``offset`` is minus the padding before, and ``growth`` is what the padding adds less what the window takes. Both stay
the same when a kernel is put into a larger box of taps, which is what makes a 1x1 kernel and a 3x3 kernel addable.
All arithmetic is float64; the caller casts once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """``weight`` is float64 [rows, cols / groups, *taps]; the other fields have one entry a spatial axis."""

    weight: Array
    strides: Axes
    growth: Axes
    offsets: Axes
    dilations: Axes
    groups: int = 1

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
    return Kernel(weight, strides, growth, tuple(-b for b in before), dilations, groups)


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


def rebox(kernel: Kernel, offsets: Axes, taps: Axes, dilations: Axes) -> Kernel | None:
    """The same kernel written over a larger box of taps, or None where its taps do not lie on that grid."""
    places: list[slice] = []
    for axis, tap in enumerate(kernel.taps):
        distance = kernel.offsets[axis] - offsets[axis]
        step = kernel.dilations[axis] if tap > 1 else dilations[axis]
        if distance % dilations[axis] or step % dilations[axis]:
            return None
        start, stride = distance // dilations[axis], step // dilations[axis]
        if start < 0 or start + stride * (tap - 1) >= taps[axis]:
            return None
        places.append(slice(start, start + stride * (tap - 1) + 1, stride))
    weight = np.zeros((*kernel.weight.shape[:2], *taps))
    weight[(slice(None), slice(None), *places)] = kernel.weight
    return replace(kernel, weight=weight, offsets=offsets, dilations=dilations)


def common_box(a: Kernel, b: Kernel) -> tuple[Axes, Axes, Axes]:
    """The smallest box of taps that holds both kernels, as (offsets, taps, dilations)."""
    offsets, taps, dilations = [], [], []
    for axis in range(len(a.taps)):
        first = min(a.offsets[axis], b.offsets[axis])
        steps = [k.dilations[axis] for k in (a, b) if k.taps[axis] > 1]
        steps += [k.offsets[axis] - first for k in (a, b)]
        step = gcd(*steps) or 1
        last = max(k.offsets[axis] + k.dilations[axis] * (k.taps[axis] - 1) for k in (a, b))
        offsets.append(first)
        taps.append((last - first) // step + 1)
        dilations.append(step)
    return tuple(offsets), tuple(taps), tuple(dilations)


def add(a: Kernel, b: Kernel) -> Kernel | None:
    """a + b over the same source, or None where the sum is not one kernel or would cost more than the two."""
    if (a.rows, a.cols, a.strides, a.growth) != (b.rows, b.cols, b.strides, b.growth):
        return None
    groups = gcd(a.groups, b.groups)
    box = common_box(a, b)
    cost = a.rows * (a.cols // groups) * prod(box[1])
    # A selection is free by itself, so what it joins must not grow for its sake.
    free = sum(k.macs for k in (a, b) if not k.is_selection)
    both_selections = a.is_selection and b.is_selection
    if (both_selections and cost > a.macs) or (not both_selections and cost > free):
        return None
    left, right = (rebox(regroup(k, groups), *box) for k in (a, b))
    if left is None or right is None:
        return None
    return replace(left, weight=left.weight + right.weight)


def compose(outer: Kernel, inner: Kernel) -> Kernel | None:
    """outer after inner as one kernel, or None where that is not exact at the border.

    Exact cases: one of the two has a single tap; and where ``outer`` reads zeros beyond the border of the inner
    result, the composed kernel reads zeros there too.
    """
    if not (outer.is_single_tap or inner.is_single_tap):
        return None
    if outer.is_padded and not (inner.is_single_tap and _covers(inner)):
        return None
    groups, weight = _compose_weights(outer, inner)
    strided = tuple(d * s for d, s in zip(outer.dilations, inner.strides, strict=True))
    return Kernel(
        weight,
        strides=tuple(o * i for o, i in zip(outer.strides, inner.strides, strict=True)),
        growth=tuple(i + s * o for o, i, s in zip(outer.growth, inner.growth, inner.strides, strict=True)),
        offsets=tuple(i + s * o for o, i, s in zip(outer.offsets, inner.offsets, inner.strides, strict=True)),
        dilations=strided if inner.is_single_tap else inner.dilations,
        groups=groups,
    )


def _covers(inner: Kernel) -> bool:
    """Whether every position outside the inner result lies outside the source too (nothing was cropped)."""
    before, after = inner.pads
    return all(pad >= 0 for pad in before + after)


def _compose_weights(outer: Kernel, inner: Kernel) -> tuple[int, Array]:
    if inner.is_diagonal:  # scale the columns of outer: exact for any grouping
        scale = inner.weight.reshape(outer.groups, 1, -1)
        blocks = outer.weight.reshape(outer.groups, outer.rows // outer.groups, -1, *outer.taps)
        weight = blocks * scale.reshape(*scale.shape, *(1,) * len(outer.taps))
        return outer.groups, weight.reshape(outer.weight.shape)
    if outer.is_diagonal:
        return inner.groups, inner.weight * outer.weight.reshape((-1, 1) + (1,) * len(inner.taps))
    left, right = regroup(outer, 1).weight, regroup(inner, 1).weight
    taps = tuple(a * b for a, b in zip(left.shape[2:], right.shape[2:], strict=True))
    if outer.is_single_tap:
        weight = np.einsum("rm,mc...->rc...", left.reshape(left.shape[:2]), right)
    else:
        weight = np.einsum("rm...,mc->rc...", left, right.reshape(right.shape[:2]))
    return 1, weight.reshape(outer.rows, inner.cols, *taps)


def apply_to_bias(kernel: Kernel, bias: Array) -> Array:
    """What an unpadded kernel makes of a constant input: bias [cols] to [rows]."""
    summed = kernel.weight.reshape(kernel.groups, kernel.rows // kernel.groups, -1, prod(kernel.taps)).sum(axis=3)
    result: Array = np.einsum("grc,gc->gr", summed, bias.reshape(kernel.groups, -1)).reshape(-1)
    return result


def block_matrix(blocks: Sequence[Sequence[Kernel]]) -> Kernel:
    """Ungrouped kernels of equal geometry and box, stacked: blocks[i][j] maps source j to rows i."""
    first = blocks[0][0]
    weight = np.concatenate([np.concatenate([k.weight for k in line], axis=1) for line in blocks], axis=0)
    return replace(first, weight=weight)
