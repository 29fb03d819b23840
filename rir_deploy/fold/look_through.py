"""Reading through a tensor to what it was made of, where a kernel that is there anyway takes the work over for free.

A tensor that is itself a convolution (or an average pool, which is one with equal weights) is normally computed as it
stands: to compose it with its reader would multiply by more weights. But beside a kernel that already covers its taps,

    K * x  +  D * pool(k * x + b)   =   (K + D . P . k) * x  +  D . P . b

costs what K costs, and the pool and its convolution are gone. Exact where no padding meets a bias: beyond the border
of its input a pool that counts its padding reads zeros, never b.
"""

from __future__ import annotations

from rir_deploy.fold.algebra import add, apply_to_bias, compose
from rir_deploy.fold.forms import Segment, Term, around_groups, segment_rows
from rir_deploy.fold.kernels import Array, Kernel, take_rows

# A pool of a padded convolution is three tensors deep.
_MAX_DEPTH = 3


def look_through(segment: Segment) -> Segment:
    """The same segment with every such term taken over, until none is left."""
    terms, bias = list(segment.terms), segment.bias
    settled = len(terms) < 2
    while not settled:
        settled = True
        for term in terms:
            taken = _take_over(term, [other for other in terms if other is not term])
            if taken is not None:
                terms, bias = taken[0], bias + taken[1]
                settled = False
                break
    return Segment(segment.rows, tuple(terms), bias)


def _take_over(term: Term, others: list[Term], depth: int = _MAX_DEPTH) -> tuple[list[Term], Array] | None:
    """The other terms with ``term`` added to them through its source, and the bias that comes with it."""
    opened = _open(term)
    if opened is None:
        return None
    inner_terms, bias = opened
    result = list(others)
    for inner in inner_terms:
        sums = [_sum(other, inner) for other in result]
        place = next((i for i, kernel in enumerate(sums) if kernel is not None), None)
        if place is not None and (kernel := sums[place]) is not None:
            result[place] = Term(inner.source, inner.start, inner.stop, kernel)
            continue
        deeper = _take_over(inner, result, depth - 1) if depth else None
        if deeper is None:
            return None
        result, bias = deeper[0], bias + deeper[1]
    return result, bias


def _sum(term: Term, other: Term) -> Kernel | None:
    """Both as one kernel, where that costs what ``term`` costs alone."""
    if (term.source, term.start, term.stop) != (other.source, other.start, other.stop) or term.kernel.is_selection:
        return None
    kernel = add(term.kernel, other.kernel)
    return kernel if kernel is not None and kernel.macs <= term.kernel.macs else None


def _open(term: Term) -> tuple[list[Term], Array] | None:
    """The term in terms of what its source is made of, and a bias; None where that is not exact."""
    source = term.source
    if source.operand is None or (source.op is not None and source.pooling is None):
        return None
    cuts = {term.start, term.stop}
    if around_groups(source.operand, cuts) != cuts:
        return None
    operand, kernel = segment_rows(source.operand, term.start, term.stop), term.kernel
    if source.pooling is not None:
        composed = compose(kernel, take_rows(source.pooling, term.start, term.stop)[0])
        if composed is None:
            return None
        kernel = composed
    if operand.bias.any() and kernel.is_padded:
        return None
    inner = [(t, compose(kernel, t.kernel)) for t in operand.terms]
    terms = [Term(t.source, t.start, t.stop, k) for t, k in inner if k is not None]
    return (terms, apply_to_bias(kernel, operand.bias)) if len(terms) == len(inner) else None
