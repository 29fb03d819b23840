"""The rules of ops that move channels and positions about: Concat, Split, Slice, Pad."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from rir_deploy.fold import kernels, rules_border
from rir_deploy.fold.affine import NormalForm, RefusalError, check_reads
from rir_deploy.fold.attributes import axis_of, ints_of, string_of
from rir_deploy.fold.forms import Affine, Extent, Segment, cuts_around_groups, extents_after, take_channels
from rir_deploy.fold.kernels import Kernel
from rir_deploy.fold.rules_conv import compose_segment


def concat(nf: NormalForm, node: ir.Node) -> Affine | None:
    forms = [nf.operand(value) for value in node.inputs]
    known = [form for form in forms if form is not None]
    if len(known) < len(forms) or not known:
        return None
    if axis_of(node, known[0]) != 1 or any(form.extents != known[0].extents for form in known):
        return None
    return Affine(tuple(segment for form in known for segment in form.segments), known[0].extents)


def split(nf: NormalForm, node: ir.Node) -> Affine | None:
    """Split has several outputs: every one but the first is set here."""
    form = nf.operand(node.inputs[0])
    if form is None or axis_of(node, form) != 1:
        return None
    sizes = _split_sizes(nf, node, form.channels)
    if sizes is None or sum(sizes) != form.channels or len(sizes) != len(node.outputs):
        raise RefusalError("its sizes are not constants")
    if 0 in sizes:
        raise RefusalError("it splits off a tensor without elements")
    borders = [0, *np.cumsum(sizes).tolist()]
    _check_cuts(form, set(borders))
    parts = [check_reads(take_channels(form, *r)) for r in itertools.pairwise(borders)]
    for output, part in list(zip(node.outputs, parts, strict=True))[1:]:
        nf.forms[output] = part
    return parts[0]


def _check_cuts(form: Affine, cuts: set[int]) -> None:
    if cuts_around_groups(form, cuts) != cuts:
        raise RefusalError("it cuts through a group of a grouped convolution")


def _split_sizes(nf: NormalForm, node: ir.Node, channels: int) -> list[int] | None:
    if (attribute := ints_of(node, "split", ())) != ():
        return list(attribute)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = nf.constants.get(node.inputs[1])
        return None if sizes is None else [int(size) for size in sizes.reshape(-1)]
    count = len(node.outputs)
    chunk = -(-channels // count)
    return [min(chunk, channels - chunk * i) for i in range(count)]


def slice_channels(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None:
        return None
    arrays = [nf.constants.get(value) for value in node.inputs[1:]]
    if len(arrays) < 2 or any(a is None and v is not None for a, v in zip(arrays, node.inputs[1:], strict=True)):
        return None
    lists = [[int(x) for x in np.asarray(a).reshape(-1)] if a is not None else None for a in arrays]
    starts, ends = lists[0] or [], lists[1] or []
    axes = lists[2] if len(lists) > 2 and lists[2] is not None else list(range(len(starts)))
    steps = lists[3] if len(lists) > 3 and lists[3] is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    spatial = [1] * form.axes
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % (form.axes + 2)
        if axis == 1 and step == 1:
            low, high, _ = slice(start, end).indices(form.channels)
            if low >= high:
                return None
            _check_cuts(form, {low, high})
            form = take_channels(form, low, high)
        elif axis >= 2 and start == 0 and step >= 1 and _reaches_end(end, form.extents[axis - 2]):
            spatial[axis - 2] = step
        else:
            return None
    if all(step == 1 for step in spatial):
        return form
    return _map_segments(nf, node, form, lambda channels: kernels.subsample(channels, tuple(spatial)))


def _reaches_end(end: int, extent: Extent) -> bool:
    return end >= extent if isinstance(extent, int) else end >= 2**31 - 1


def pad(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    amounts = nf.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if form is None or amounts is None or string_of(node, "mode", "constant") != "constant":
        return None
    fill = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if fill is None or np.any(np.asarray(fill, dtype=np.float64) != 0.0):
        return None
    rank = form.axes + 2
    before, after = [0] * rank, [0] * rank
    listed = (
        nf.constants.get(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else np.arange(rank)
    )
    if listed is None:
        return None
    half = len(listed)
    for position, axis in enumerate(int(a) % rank for a in listed):
        before[axis], after[axis] = int(amounts[position]), int(amounts[half + position])
    if before[0] or after[0] or min(before[1], after[1]) < 0:
        return None
    zeros = [Segment(n, (), np.zeros(n)) for n in (before[1], after[1])]
    low, high = ([zero] if zero.rows else [] for zero in zeros)
    form = Affine((*low, *form.segments, *high), form.extents)
    if not any(before[2:]) and not any(after[2:]):
        return form
    if any(segment.bias.any() for segment in form.segments):
        rules_border.begin(nf, node, form, tuple(before[2:]), tuple(after[2:]))
    return _map_segments(nf, node, form, lambda channels: kernels.shift(channels, tuple(before[2:]), tuple(after[2:])))


def _map_segments(nf: NormalForm, node: ir.Node, form: Affine, make: Callable[[int], Kernel]) -> Affine | None:
    """A diagonal kernel on every segment, where all of them stay convolutions of their sources."""
    segments = []
    for segment in form.segments:
        kernel = make(segment.rows)
        if segment.bias.any() and kernel.is_padded:
            return None
        terms = compose_segment(kernel, segment, shared=True)
        if terms is None:
            return None
        segments.append(Segment(segment.rows, terms, segment.bias))
    return Affine(tuple(segments), extents_after(form.extents, make(1)))
