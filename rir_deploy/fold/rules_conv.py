"""The rule of Conv: compose with what came before where that is exact and adds no work, else read its tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from rir_deploy.fold import kernels
from rir_deploy.fold.affine import NormalForm, RefusalError
from rir_deploy.fold.algebra import apply_to_bias, compose, composed_macs
from rir_deploy.fold.attributes import int_of, ints_of, name_of, string_of
from rir_deploy.fold.branches import branches_of
from rir_deploy.fold.forms import Affine, Extents, Segment, Term, extents_after, offset_form
from rir_deploy.fold.kernels import Array, Axes, Kernel
from rir_deploy.fold.sums import merge_terms


def conv(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None and _is_empty(node.inputs[0]):
        raise RefusalError("its input has no elements")
    if form is None:
        raise RefusalError("the shape of its input is not known: no channel count to fold over")
    weight = nf.constants.get(node.inputs[1])
    if weight is None:
        name = name_of(node.inputs[1])
        raise RefusalError(f"its weight '{name}' is not a constant (a graph input, quantised, or computed at run time)")
    bias = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
    if bias is None:
        raise RefusalError(f"its bias '{name_of(node.inputs[2])}' is not a constant")
    if not weight.size:
        raise RefusalError("its weight has no elements")
    if weight.ndim != form.axes + 2:
        raise RefusalError(f"its weight has {weight.ndim} dimensions where its input has {form.axes + 2}")
    kernel = _conv_kernel(node, weight.astype(np.float64), form.extents)
    if kernel.cols != form.channels or kernel.rows % kernel.groups:
        raise RefusalError(f"its weight reads {kernel.cols} channels where its input has {form.channels}")
    if np.shape(bias) not in ((), (kernel.rows,)):
        raise RefusalError(f"its bias has the shape {np.shape(bias)} where it has {kernel.rows} output channels")
    result = _convolve(nf, node, replace(kernel, branches=branches_of(node)), form)
    offset = np.broadcast_to(np.asarray(bias, dtype=np.float64), (kernel.rows,))
    return offset_form(result, offset)


def _is_empty(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and any(size == 0 for size in value.shape)


def _conv_kernel(node: ir.Node, weight: Array, extents: Extents) -> Kernel:
    axes = weight.ndim - 2
    strides = ints_of(node, "strides", (1,) * axes)
    dilations = ints_of(node, "dilations", (1,) * axes)
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    pads = ints_of(node, "pads", (0,) * (2 * axes))
    if auto_pad == "VALID":
        pads = (0,) * (2 * axes)
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(auto_pad, weight.shape[2:], strides, dilations, extents)
    return kernels.convolution(weight, strides, pads, dilations, int_of(node, "group", 1))


def _same_pads(auto_pad: str, taps: Axes, strides: Axes, dilations: Axes, extents: Extents) -> Axes:
    before, after = [], []
    for tap, stride, dilation, extent in zip(taps, strides, dilations, extents, strict=True):
        if stride == 1:
            total = dilation * (tap - 1)
        elif isinstance(extent, int):
            total = max((-(-extent // stride) - 1) * stride + dilation * (tap - 1) + 1 - extent, 0)
        else:
            raise RefusalError(f"auto_pad {auto_pad} with a stride pads by the input's size, which is dynamic")
        small, large = total // 2, total - total // 2
        before.append(small if auto_pad == "SAME_UPPER" else large)
        after.append(large if auto_pad == "SAME_UPPER" else small)
    return (*before, *after)


def _convolve(nf: NormalForm, node: ir.Node, kernel: Kernel, form: Affine) -> Affine:
    """kernel * form, one part for every segment of the input."""
    origin = node.inputs[0]
    assert origin is not None
    shared = nf.uses(origin) > 1
    terms: list[Term] = []
    bias = np.zeros(kernel.rows)
    grouped: list[Segment] = []
    at = 0
    for segment in form.segments:
        taken = kernels.take_columns(kernel, at, at + segment.rows)
        if taken is None:
            raise RefusalError("a group of its channels straddles two concatenated tensors")
        part_terms, part_bias = _through(nf, taken[0], segment, shared, (form.extents, origin, at))
        if kernel.groups == 1:
            terms.extend(part_terms)
            bias = bias + part_bias
        else:
            grouped.append(Segment(taken[0].rows, part_terms, part_bias))
        at += segment.rows
    segments = tuple(grouped) if kernel.groups > 1 else (Segment(kernel.rows, merge_terms(terms), bias),)
    return Affine(segments, extents_after(form.extents, kernel))


def _through(
    nf: NormalForm, kernel: Kernel, segment: Segment, shared: bool, place: tuple[Extents, ir.Value, int]
) -> tuple[tuple[Term, ...], Array]:
    """One kernel applied to one segment: composed where that is exact and adds no work, else to its tensor."""
    exact_bias = not segment.bias.any() or not kernel.is_padded
    if exact_bias:
        composed = compose_segment(kernel, segment, shared)
        if composed is not None:
            return composed, apply_to_bias(kernel, segment.bias)
    if not segment.terms:
        raise RefusalError("it pads a constant that is not zero, which is no convolution of anything")
    source = nf.materialize(segment, *place)
    (term,) = source.terms
    return (Term(term.source, 0, segment.rows, kernel),), np.zeros(kernel.rows)


def compose_segment(kernel: Kernel, segment: Segment, shared: bool) -> tuple[Term, ...] | None:
    # What the inner convolutions cost goes away only if nobody else needs their result.
    saved = 0 if shared else sum(0 if t.kernel.is_diagonal else t.kernel.macs for t in segment.terms)
    if sum(composed_macs(kernel, term.kernel) for term in segment.terms) > kernel.macs + saved:
        return None
    terms = []
    for term in segment.terms:
        inner = compose(kernel, term.kernel)
        if inner is None:
            return None
        terms.append(Term(term.source, term.start, term.stop, inner))
    return tuple(terms)
