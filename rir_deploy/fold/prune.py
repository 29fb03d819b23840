"""Channels that nobody needs go away: those that are always zero, and those that no weight reads.

A channel is needed if a graph output or a node outside the fold reads it (they keep their shape), or if some needed
row multiplies it by a weight that is not zero, while it is not zero itself. Grouped and depthwise kernels, which
include every identity, can be cut only along with the columns they read: there, rows and columns stay together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.forms import Affine, Segment, Source, Term
from rir_deploy.fold.kernels import Kernel, regroup
from rir_deploy.fold.nested import values_read
from rir_deploy.fold.silence import Mask, Silence, stored

Masks = dict[Source, Mask]


def prune(nf: NormalForm) -> int:
    """Take unneeded channels out of the normal form; returns how many there were."""
    needed = _needed(nf)
    operands = [source.operand for source in nf.sources if source.operand is not None and needed[source].any()]
    read = dict.fromkeys(term.source for operand in operands for term in operand.terms)
    gone = sum(int((~needed[source]).sum()) for source in read)
    if not gone:
        return 0
    for source in nf.sources:
        if source.operand is not None and needed[source].any():
            source.operand = _cut_segment(source.operand, needed[source], needed)
            source.origin_channels = tuple(np.flatnonzero(needed[source]).tolist())
            source.channels = source.operand.rows
    for value in _values(nf):
        form = nf.forms[value]
        segments = [_cut_segment(segment, np.ones(segment.rows, dtype=bool), needed) for segment in form.segments]
        nf.forms[value] = Affine(tuple(segments), form.extents)
    return gone


def _values(nf: NormalForm) -> list[ir.Value]:
    """The feature maps that graph outputs and nodes outside the fold read."""
    values = [value for node in nf.kept for value in values_read(node)] + list(nf.required)
    return [value for value in dict.fromkeys(values) if value in nf.forms]


def _needed(nf: NormalForm) -> Masks:
    """Which channels of every source are needed: backward passes until nothing is added."""
    zero = Silence(nf).zero
    needed = {source: np.full(source.channels, source.is_kept) for source in nf.sources}
    for value in _values(nf):
        for term in (term for segment in nf.forms[value].segments for term in segment.terms):
            needed[term.source][term.start : term.stop] = True
    marked: dict[Source, bytes] = {}
    counts: list[int] = []
    while len(counts) < 2 or counts[-1] != counts[-2]:
        for source in reversed(nf.sources):
            if source.operand is None or not needed[source].any():
                continue
            _close(source.operand, needed[source], needed)
            if marked.get(source) != needed[source].tobytes():
                marked[source] = needed[source].tobytes()
                _mark(source, source.operand, needed, zero)
        counts.append(sum(int(mask.sum()) for mask in needed.values()))
    return needed


def _bound_groups(term: Term, rows: Mask, needed: Masks) -> Mask | None:
    """The groups of a kernel that are needed at either end; None where rows and columns need not stay together.

    What is left of a grouped kernel when one group is left is a dense kernel.
    """
    kernel = term.kernel
    if kernel.is_dense:
        return None
    columns = needed[term.source][term.start : term.stop]
    live = np.logical_or(columns.reshape(kernel.groups, -1).any(axis=1), rows.reshape(kernel.groups, -1).any(axis=1))
    return live if live.sum() > 1 or kernel.is_selection else None


def _close(operand: Segment, rows: Mask, needed: Masks) -> None:
    """Where a group of a grouped kernel is needed at either end, it is needed whole."""
    for term in operand.terms:
        live = _bound_groups(term, rows, needed)
        if live is not None:
            rows |= np.repeat(live, term.kernel.rows // term.kernel.groups)


def _mark(source: Source, operand: Segment, needed: Masks, zero: Masks) -> None:
    """Mark what the needed rows of a source read."""
    rows = needed[source]
    for term in operand.terms:
        kernel, part = term.kernel, slice(term.start, term.stop)
        live = _bound_groups(term, rows, needed)
        if live is not None:
            needed[term.source][part] |= np.repeat(live, kernel.cols // kernel.groups)
        else:
            needed[term.source][part] |= _columns_read(kernel, rows, source) & ~zero[term.source][part]
    if operand.terms and not any(needed[term.source][term.start : term.stop].any() for term in operand.terms):
        # Rows that are constant have to read something, or no convolution could write them.
        needed[operand.terms[0].source][operand.terms[0].start] = True


def _columns_read(kernel: Kernel, rows: Mask, reader: Source) -> Mask:
    """The columns where the chosen rows have a weight that is not zero."""
    weight = stored(np.where(rows.reshape(-1, *(1,) * (kernel.weight.ndim - 1)), kernel.weight, 0.0), reader)
    by_group = weight.reshape(kernel.groups, kernel.rows // kernel.groups, -1, *kernel.taps)
    result: Mask = by_group.any(axis=(1, *range(3, by_group.ndim))).reshape(-1)
    return result


def _cut_segment(segment: Segment, rows: Mask, needed: Masks) -> Segment:
    terms = [_cut_term(term, rows, needed) for term in segment.terms]
    return Segment(int(rows.sum()), tuple(term for term in terms if term is not None), segment.bias[rows])


def _cut_term(term: Term, rows: Mask, needed: Masks) -> Term | None:
    """The chosen rows of a term over the channels of its source that are left; None where none are."""
    kernel, columns = term.kernel, needed[term.source][term.start : term.stop]
    start = int(needed[term.source][: term.start].sum())
    stop = start + int(columns.sum())
    if start == stop:
        return None
    if rows.all() and columns.all():
        return Term(term.source, start, stop, kernel)
    live = _bound_groups(term, rows, needed)
    if live is not None:
        return Term(term.source, start, stop, replace(kernel, weight=kernel.weight[rows], groups=int(live.sum())))
    dense = regroup(kernel, 1)
    return Term(term.source, start, stop, replace(dense, weight=dense.weight[rows][:, columns]))
