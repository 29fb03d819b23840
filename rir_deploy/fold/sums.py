"""Sums of feature maps in normal form: what reads the same channels becomes one kernel, wherever that costs nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rir_deploy.fold.algebra import add
from rir_deploy.fold.forms import Affine, Segment, Term, cuts_around_groups, take_channels
from rir_deploy.fold.look_through import look_through


def merge_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Add kernels that read the same channels wherever the sum costs no more than its parts, until none is left."""
    merged: list[Term] = []
    for term in terms:
        candidate, settled = term, False
        while not settled:
            settled = True
            for i, other in enumerate(merged):
                if (other.source, other.start, other.stop) != (candidate.source, candidate.start, candidate.stop):
                    continue
                kernel = add(other.kernel, candidate.kernel)
                if kernel is not None:
                    candidate = Term(candidate.source, candidate.start, candidate.stop, kernel)
                    del merged[i]
                    settled = False
                    break
        merged.append(candidate)
    return tuple(merged)


def align(a: Affine, b: Affine) -> list[tuple[Segment, Segment]]:
    """Cut two maps of equal channel count at each other's borders."""
    cuts = _borders(a) | _borders(b)
    for form in (a, b):
        cuts = cuts_around_groups(form, cuts)
    ranges = list(itertools.pairwise(sorted(cuts)))
    return [(_only(take_channels(a, *r)), _only(take_channels(b, *r))) for r in ranges]


def add_forms(a: Affine, b: Affine) -> Affine:
    pairs = align(a, b)
    sums = [Segment(x.rows, merge_terms(x.terms + y.terms), x.bias + y.bias) for x, y in pairs]
    return Affine(tuple(look_through(segment) for segment in sums), a.extents)


def _borders(form: Affine) -> set[int]:
    return {0, *np.cumsum([segment.rows for segment in form.segments]).tolist()}


def _only(form: Affine) -> Segment:
    (segment,) = form.segments
    return segment
