"""The rules of a border that is written after padding: Pad, then ScatterND until no zero of the border is left.

A Diverse Branch Block pads the result of a batch norm with what the batch norm makes of zero, its bias b, so that the
padded convolution after it is exact to fold. Exporters write that as a zero Pad and four scattered strips. With all of
them written, the map is

    pad(k * x) + b     everywhere,

which is affine. Until then it is none: these rules keep track of what a half-written map lacks (`Border`), also seen
through the transpositions that exporters scatter in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.fold.affine import NormalForm, RefusalError
from rir_deploy.fold.algebra import compose
from rir_deploy.fold.attributes import ints_of, string_of
from rir_deploy.fold.forms import Affine, Segment, Term, extents_after
from rir_deploy.fold.kernels import Array, Axes, shift

Places = NDArray[np.bool_]
# How far a border may be off, in steps of the float type: exporters compute it in their own precision.
_STEPS = 100


@dataclass(frozen=True)
class Border:
    """A padded map, ``filled`` once ``written`` [*spatial] is true everywhere; ``values`` are what is to be written."""

    filled: Affine
    written: Places
    inside: Places
    values: Array


@dataclass(frozen=True)
class View:
    """A half-written map, or one number a channel [C] repeated, with its axes transposed by ``perm``."""

    content: Border | Array
    perm: Axes

    @property
    def form(self) -> Affine | None:
        """The normal form, where it is whole again."""
        whole = isinstance(self.content, Border) and self.content.written.all() and self.perm == _straight(self.perm)
        return self.content.filled if whole and isinstance(self.content, Border) else None


def begin(nf: NormalForm, node: ir.Node, form: Affine, before: Axes, after: Axes) -> None:
    """Take note of a Pad of a map with a bias: its border still lacks the bias."""
    sizes = [extent for extent in form.extents if isinstance(extent, int)]
    if len(sizes) < form.axes or min(before + after) < 0:
        return
    origin = node.inputs[0]
    assert origin is not None
    segments, at = [], 0
    for segment in form.segments:
        kernel = shift(segment.rows, before, after)
        unbiased = nf.materialize(replace(segment, bias=np.zeros(segment.rows)), form.extents, origin, at)
        (term,) = unbiased.terms
        padded = compose(kernel, term.kernel)
        assert padded is not None, "a shift of an identity is a shift"
        segments.append(Segment(segment.rows, (Term(term.source, term.start, term.stop, padded),), segment.bias))
        at += segment.rows
    inside = np.zeros([b + size + a for b, size, a in zip(before, sizes, after, strict=True)], dtype=bool)
    inside[tuple(slice(b, b + size) for b, size in zip(before, sizes, strict=True))] = True
    filled = Affine(tuple(segments), extents_after(form.extents, shift(1, before, after)))
    values = np.concatenate([segment.bias for segment in form.segments])
    nf.views[node.outputs[0]] = View(Border(filled, inside, inside, values), _straight((0,) * (form.axes + 2)))


def transpose(nf: NormalForm, node: ir.Node) -> Affine | None:
    view = _view(nf, node.inputs[0])
    if view is None:
        return None
    perm = ints_of(node, "perm", tuple(reversed(view.perm)))
    turned = View(view.content, tuple(view.perm[axis] for axis in perm))
    nf.views[node.outputs[0]] = turned
    return turned.form


def expand(nf: NormalForm, node: ir.Node) -> Affine | None:
    """One number a channel, repeated to a size that may depend on the batch."""
    array, shape = nf.constants.get(node.inputs[0]), node.outputs[0].shape
    if array is not None and shape is not None and len(shape) > 2:
        aligned = (1,) * (len(shape) - array.ndim) + array.shape
        if array.size == aligned[1] == shape[1]:
            nf.views[node.outputs[0]] = View(array.astype(np.float64).reshape(-1), _straight(aligned))
    return None


def scatter(nf: NormalForm, node: ir.Node) -> Affine | None:
    view = _view(nf, node.inputs[0])
    if view is None or not isinstance(view.content, Border):
        return None
    if string_of(node, "reduction", "none") != "none":
        raise RefusalError("it adds to a border; only writing one is known")
    indices = nf.constants.get(node.inputs[1])
    if indices is None:
        raise RefusalError(
            "it writes a border at places that depend on the input's size or batch; export with fixed sizes"
        )
    border = view.content
    places = _written(nf, node, indices.astype(np.int64), view)
    if places is None or (places & border.inside).any():
        raise RefusalError("it writes more than the border of a padded map, or not what makes the map affine")
    result = View(replace(border, written=border.written | places), view.perm)
    nf.views[node.outputs[0]] = result
    return result.form


def _written(nf: NormalForm, node: ir.Node, indices: NDArray[np.int64], view: View) -> Places | None:
    """The places [*spatial] at which every channel of every image gets its value; None if any number is another."""
    border, depth, updates = view.content, indices.shape[-1], node.inputs[2]
    assert isinstance(border, Border)
    axes = view.perm[:depth]
    other = _view(nf, updates)
    if depth == 1 and axes[0] >= 2:
        if other is not None and (other.perm != view.perm or not _same(node, other.content, border.values)):
            return None
        if other is None and not _same_strips(nf, node, nf.constants.get(updates), view):
            return None
        places = np.zeros_like(border.written)
        np.moveaxis(places, axes[0] - 2, 0)[indices.reshape(-1)] = True
        return places
    return _written_one_by_one(nf, node, indices, axes, border) if depth == len(view.perm) else None


def _written_one_by_one(
    nf: NormalForm, node: ir.Node, indices: NDArray[np.int64], axes: Axes, border: Border
) -> Places | None:
    shape, updates = node.outputs[0].shape, nf.constants.get(node.inputs[2])
    batch = shape[0] if shape is not None else None
    if updates is None or not isinstance(batch, int):
        return None
    at = dict(zip(axes, np.moveaxis(indices, -1, 0), strict=True))
    if not _same(node, updates, border.values[at[1]]):
        return None
    touched = np.zeros((batch, len(border.values), *border.written.shape), dtype=bool)
    touched[tuple(at[axis] for axis in range(touched.ndim))] = True
    places = np.asarray(touched.all(axis=(0, 1)))
    return places if np.array_equal(touched.any(axis=(0, 1)), places) else None


def _same_strips(nf: NormalForm, node: ir.Node, updates: NDArray[np.generic] | None, view: View) -> bool:
    """Whether constant strips hold the border's values along their channel axis."""
    if updates is None or not isinstance(view.content, Border) or updates.ndim != len(view.perm):
        return False
    channels_last = np.moveaxis(updates, view.perm.index(1), -1)
    return channels_last.shape[-1] == len(view.content.values) and _same(node, channels_last, view.content.values)


def _same(node: ir.Node, found: object, values: Array) -> bool:
    dtype = node.outputs[0].dtype
    if not isinstance(found, np.ndarray) or dtype is None:
        return False
    step = float(np.finfo(dtype.numpy()).eps) if dtype.numpy().kind == "f" else 2.0**-8
    difference = np.abs(found.astype(np.float64) - values)
    return bool((difference <= _STEPS * step * max(float(np.abs(values).max()), 1e-30)).all())


def _view(nf: NormalForm, value: ir.Value | None) -> View | None:
    view = None if value is None else nf.views.get(value)
    return view if isinstance(view, View) else None


def _straight(perm: Axes) -> Axes:
    return tuple(range(len(perm)))
