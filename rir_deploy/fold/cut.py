"""Where every source has to be cut: at each channel where some reader starts or stops reading."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.forms import Bottoms, Segment, Source, around_groups, bottom, segment_rows
from rir_deploy.fold.nested import values_read


def cut(nf: NormalForm) -> dict[Source, list[Segment]]:
    """The pieces of every source that is needed: one backward pass, since readers come after what they read."""
    cuts: dict[Source, set[int]] = defaultdict(set)
    pieces: dict[Source, list[Segment]] = {}
    values = [value for node in nf.kept for value in values_read(node)] + list(nf.required)
    _mark(cuts, (segment for value in values if (form := nf.form(value)) for segment in form.segments))
    known: Bottoms = {}
    for source in nf.sources:
        if source.operand is not None:
            known[source] = bottom(source.operand, known)
    for source in reversed(nf.sources):
        if source not in cuts and not source.is_kept:
            continue
        marked = cuts[source] | {0, source.channels}
        borders = sorted(marked if source.operand is None else around_groups(source.operand, marked, known))
        ranges = list(itertools.pairwise(borders))
        if source.operand is None:
            pieces[source] = [Segment(stop - start, (), np.zeros(0)) for start, stop in ranges]
        else:
            pieces[source] = [segment_rows(source.operand, start, stop) for start, stop in ranges]
            _mark(cuts, pieces[source])
    return pieces


def _mark(cuts: dict[Source, set[int]], segments: Iterable[Segment]) -> None:
    for segment in segments:
        for term in segment.terms:
            cuts[term.source] |= {term.start, term.stop}
