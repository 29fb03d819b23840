"""The affine normal form of a feature map: a list of channel segments, each a sum of convolutions of sources.

    segment = sum_k  kernel_k * source_k[start_k : stop_k]  +  bias

A *source* is what the algebra takes as given: a tensor of the graph that no rule explains, or the result of a
channelwise op (relu, pooling, ...) on one segment, or a segment that has to exist as a tensor. Channelwise ops act on
every channel alone, so relu(concat(a, b)) is concat(relu(a), relu(b)): segments never need to be taken together here,
and which of them to put back together is decided once, over the whole graph, in `join`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.kernels import Array, Kernel, diagonal, scale_rows, take_columns, take_rows

# The length of one spatial axis: a number, or (root, stride, growth) for floor((root + growth - 1) / stride) + 1.
Extent = int | tuple[object, int, int]
Extents = tuple[Extent, ...]


@dataclass(frozen=True)
class ChannelwiseOp:
    """An op that treats every channel alike and alone; two with equal fields may share one node."""

    op_type: str
    attributes: tuple[tuple[str, str], ...]
    constants: tuple[bytes, ...]
    template: ir.Node = field(compare=False, repr=False)


@dataclass(eq=False)
class Source:
    """Something that convolutions read: a tensor of the graph where ``operand`` is None, else ``op`` of ``operand``.

    ``origin_channels`` are the places, after ``origin_start``, of the channels that pruning left (None: all).
    ``batch`` is the length of the first axis; two are known to be equal where these are.
    ``pooling`` is set where ``op`` is an average that is also a convolution of its operand: the kernel it is.
    """

    index: int
    channels: int
    extents: Extents
    batch: Extent
    origin: ir.Value
    origin_start: int = 0
    origin_channels: tuple[int, ...] | None = None
    op: ChannelwiseOp | None = None
    pooling: Kernel | None = None
    operand: Segment | None = None
    operand_extents: Extents = ()

    @property
    def is_kept(self) -> bool:
        return self.operand is None


@dataclass(frozen=True, eq=False)
class Term:
    """kernel * source[start:stop]."""

    source: Source
    start: int
    stop: int
    kernel: Kernel

    @property
    def is_identity(self) -> bool:
        return self.kernel.is_identity


@dataclass(frozen=True, eq=False)
class Segment:
    """``rows`` consecutive channels with one formula; bias is [rows]."""

    rows: int
    terms: tuple[Term, ...]
    bias: Array

    @property
    def is_identity(self) -> bool:
        """Whether it is nothing but a slice of one source."""
        return len(self.terms) == 1 and self.terms[0].is_identity and not self.bias.any()

    @property
    def is_work(self) -> bool:
        """Whether computing it twice would cost: it convolves, or adds."""
        return len(self.terms) > 1 or any(not term.kernel.is_diagonal for term in self.terms)


@dataclass(frozen=True, eq=False)
class Affine:
    """A feature map [N, C, *spatial] in normal form."""

    segments: tuple[Segment, ...]
    extents: Extents

    @property
    def channels(self) -> int:
        return sum(segment.rows for segment in self.segments)

    @property
    def axes(self) -> int:
        return len(self.extents)

    @property
    def batches(self) -> set[Extent]:
        """The batches of all that it is made of: more than one where a Concat implies that they are equal."""
        return {term.source.batch for segment in self.segments for term in segment.terms}


def whole(source: Source) -> Affine:
    """The normal form of a source itself."""
    kernel = diagonal(np.ones(source.channels), len(source.extents))
    term = Term(source, 0, source.channels, kernel)
    return Affine((Segment(source.channels, (term,), np.zeros(source.channels)),), source.extents)


def segment_rows(segment: Segment, start: int, stop: int) -> Segment:
    """Channels start:stop of a segment."""
    if (start, stop) == (0, segment.rows):
        return segment
    terms = []
    for term in segment.terms:
        kernel, first, last = take_rows(term.kernel, start, stop)
        terms.append(Term(term.source, term.start + first, term.start + last, kernel))
    return Segment(stop - start, tuple(terms), segment.bias[start:stop])


Bottoms = dict[Source, tuple[Segment, int]]


def bottom(segment: Segment, known: Bottoms) -> tuple[Segment, int]:
    """What a chain of channelwise ops begins with, and at which of its channels: cutting an identity cuts its source.

    ``known`` are the bottoms of the operands of sources. Chains may be long: without it, each is walked to its end.
    """
    offset = 0
    while segment.is_identity and (operand := (source := segment.terms[0].source).operand) is not None:
        offset += segment.terms[0].start
        if source in known:
            return known[source][0], offset + known[source][1]
        segment = operand
    return segment, offset


def around_groups(segment: Segment, cuts: set[int], known: Bottoms | None = None) -> set[int]:
    """Where a cut falls into a group of a grouped convolution, cuts around that group too.

    A part of one group is a small kernel; a part of several would be a dense one, with zeros between the groups.
    """
    base, offset = bottom(segment, known or {})
    sizes = {term.kernel.rows // term.kernel.groups for term in base.terms if term.kernel.groups > 1}
    result = {cut + offset for cut in cuts}
    found = set(result)
    while found:
        found = {at - at % size for at in result for size in sizes} | {
            at + -at % size for at in result for size in sizes
        }
        found -= result
        result |= found
    return {cut - offset for cut in result if 0 <= cut - offset <= segment.rows}


def term_columns(term: Term, start: int, stop: int) -> Term | None:
    """The part of a term that reads source channels start:stop, None where groups straddle the cut."""
    taken = take_columns(term.kernel, start - term.start, stop - term.start)
    if taken is None or taken[1:] != (0, term.kernel.rows):
        return None
    return Term(term.source, start, stop, taken[0])


def take_channels(form: Affine, start: int, stop: int) -> Affine:
    """Channels start:stop of a feature map."""
    parts, at = [], 0
    for segment in form.segments:
        low, high = max(start - at, 0), min(stop - at, segment.rows)
        if low < high:
            parts.append(segment_rows(segment, low, high))
        at += segment.rows
    return Affine(tuple(parts), form.extents)


def cuts_around_groups(form: Affine, cuts: set[int]) -> set[int]:
    """`around_groups` for every segment of a map, at channels of the map."""
    result, start = set(cuts), 0
    for segment in form.segments:
        inside = {cut - start for cut in cuts if start <= cut <= start + segment.rows}
        result |= {start + cut for cut in around_groups(segment, inside)}
        start += segment.rows
    return result


def scale_form(form: Affine, scale: Array, offset: Array) -> Affine:
    """scale * x + offset, channel by channel; both are [channels]."""
    segments, at = [], 0
    for segment in form.segments:
        part = slice(at, at + segment.rows)
        terms = tuple(Term(t.source, t.start, t.stop, scale_rows(t.kernel, scale[part])) for t in segment.terms)
        segments.append(Segment(segment.rows, terms, segment.bias * scale[part] + offset[part]))
        at += segment.rows
    return Affine(tuple(segments), form.extents)


def offset_form(form: Affine, offset: Array) -> Affine:
    """x + offset, channel by channel; offset is [channels]."""
    segments, at = [], 0
    for segment in form.segments:
        segments.append(Segment(segment.rows, segment.terms, segment.bias + offset[at : at + segment.rows]))
        at += segment.rows
    return Affine(tuple(segments), form.extents)


def extents_after(extents: Extents, kernel: Kernel) -> Extents:
    """The spatial lengths of a kernel's result. Symbolic lengths stay closed under composition."""
    result: list[Extent] = []
    for extent, stride, growth in zip(extents, kernel.strides, kernel.growth, strict=True):
        if isinstance(extent, int):
            result.append((extent + growth - 1) // stride + 1)
        else:
            root, step, grown = extent
            result.append((root, step * stride, grown + step * growth))
    return tuple(result)
