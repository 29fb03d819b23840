"""Sums and products of kernels: which of them are one kernel again, exactly, and at no more cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd, prod

import numpy as np

from rir_deploy.fold.kernels import SHORTCUT, Array, Axes, Kernel, canonical_dilations, regroup


def rebox(kernel: Kernel, offsets: Axes, taps: Axes, dilations: Axes) -> Kernel | None:
    """The same kernel written over a larger box of taps, or None where its taps do not lie on that grid."""
    if (offsets, taps, dilations) == (kernel.offsets, kernel.taps, kernel.dilations):
        return kernel
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
    branches = frozenset[str]().union(*(k.branches or {SHORTCUT} for k in (a, b)))
    return replace(left, weight=left.weight + right.weight, branches=branches)


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
        dilations=canonical_dilations(strided if inner.is_single_tap else inner.dilations, weight.shape[2:]),
        groups=groups,
        branches=outer.branches | inner.branches,
    )


def composed_macs(outer: Kernel, inner: Kernel) -> int:
    """What `compose` would cost, without computing it."""
    if inner.is_diagonal:
        return outer.macs
    taps = prod(a * b for a, b in zip(outer.taps, inner.taps, strict=True))
    return inner.macs if outer.is_diagonal else outer.rows * inner.cols * taps


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
    branches = frozenset[str]().union(*(kernel.branches for line in blocks for kernel in line))
    return replace(first, weight=weight, branches=branches)
