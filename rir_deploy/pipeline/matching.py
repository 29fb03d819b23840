"""Which channels of which feature maps of the reference a feature map of the candidate holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.pipeline.feature_maps import INPUT, FeatureMap, Run
from rir_deploy.pipeline.places import PREPROCESSING, Place, place_of
from rir_deploy.verify.layers import Layer, Part

Arrays = Mapping[str, NDArray[Any]]

# Of what these ops put together, a fold may know some channels by the names of their parts: missing is not dropped.
_COMPOSED = frozenset(
    {"Concat", "Add", "Sub", "Mul", "Slice", "Split", "Pad", "BatchNormalization", "Conv", "Identity"}
)


@dataclass(frozen=True)
class Piece:
    """Channels first:last of a feature map of the reference."""

    source: FeatureMap
    first: int
    last: int


@dataclass(frozen=True)
class Match:
    """A feature map of the candidate, and what it is put together from in the reference.

    ``dropped`` are channels of the same tensors that no map of the candidate holds, ``missing`` are maps between these
    and the next that are held.
    """

    candidate: FeatureMap
    pieces: tuple[Piece, ...]
    dropped: tuple[Piece, ...] = ()
    missing: tuple[FeatureMap, ...] = ()

    def gather(self, reference: Arrays) -> NDArray[np.floating]:
        """What the candidate's tensor should hold, but for its own scales."""
        return _gather(self.pieces, reference)

    def gather_all(self, reference: Arrays) -> NDArray[np.floating]:
        """The same, and behind it the channels that were dropped."""
        return _gather((*self.pieces, *self.dropped), reference)

    def pad(self, array: NDArray[np.floating]) -> NDArray[np.floating]:
        """The candidate's tensor on the scale of the reference, with zeros for the channels that were dropped."""
        scaled = self.candidate.scale(array, -1)
        count = sum(piece.last - piece.first for piece in self.dropped)
        return np.pad(scaled, [(0, 0), (0, count), *[(0, 0)] * (array.ndim - 2)]) if count else scaled

    def layer(self) -> Layer:
        """Its names, on both sides."""
        own = place_of(self.candidate.value)
        parts, at = [], 0
        for piece in (*self.pieces, *self.dropped):
            place = self._place(piece.source, own)
            last = at + piece.last - piece.first
            parts.append(Part(at, last, piece.source.node, place.block, place.stream, piece in self.dropped))
            at = last
        blocks = {part.block for part in parts}
        places = [(one, self._place(one, own)) for one in self.missing]
        missing = [Part(0, 0, one.node, at.block, at.stream) for one, at in places if at.block not in blocks]
        return Layer(self.candidate.node, self.candidate.op, self.candidate.name, tuple(parts), tuple(missing[:1]))

    @property
    def is_input(self) -> bool:
        return self.candidate.runs[0][0] == INPUT

    def _place(self, source: FeatureMap, own: Place) -> Place:
        if self.is_input:
            return Place(PREPROCESSING, None)
        found = place_of(source.value)
        return Place(found.block or own.block, found.stream or own.stream)


def match(reference: Sequence[FeatureMap], candidate: Iterable[FeatureMap]) -> list[Match]:
    """All maps of the candidate of which the reference has every channel, in the candidate's order.

    By the names of the original tensors; where the reference has none of that name, by module and op.
    """
    holders: dict[str, list[tuple[int, int, int, FeatureMap]]] = defaultdict(list)
    for one in reference:
        at = 0
        for name, first, last in one.runs:
            holders[name].append((first, last, at, one))
            at += last - first
    keys = {one.key: one for one in reference if one.key is not None}
    found = []
    for one in candidate:
        pieces = [_find(run, holders.get(run[0], ())) for run in one.runs]
        renamed = keys.get(one.key) if one.key is not None and one.runs[0][0] not in holders else None
        if renamed is not None:
            found.append(Match(one, (Piece(renamed, 0, sum(last - first for _, first, last in renamed.runs)),)))
        elif all(part is not None for part in pieces):
            found.append(Match(one, tuple(piece for part in pieces if part is not None for piece in part)))
    return _with_missing(_with_dropped(found), reference)


def _with_missing(matches: list[Match], reference: Sequence[FeatureMap]) -> list[Match]:
    """What lies between the maps that are held, in the reference's order; a fold does without what is composed."""
    held = {piece.source.value for one in matches for piece in one.pieces}
    maps = {one.value: one for one in reference}
    order = {one: index for index, one in enumerate(reference)}
    found = []
    for one in matches:
        between: set[FeatureMap] = set()
        queue = [piece.source.value for piece in one.pieces]
        seen = set(queue)
        while queue:
            node = queue.pop().producer()
            for value in () if node is None else node.inputs:
                if value is not None and value not in seen and value not in held:
                    seen.add(value)
                    queue.append(value)
                    between |= {maps[value]} if value in maps and maps[value].op not in _COMPOSED else set()
        found.append(replace(one, missing=tuple(sorted(between, key=order.__getitem__))))
    return found


def _with_dropped(matches: list[Match]) -> list[Match]:
    """Each tensor's missing channels go to the last map that holds some of it."""
    held: dict[FeatureMap, set[int]] = defaultdict(set)
    last: dict[FeatureMap, int] = {}
    for index, one in enumerate(matches):
        for piece in one.pieces:
            held[piece.source] |= set(range(piece.first, piece.last))
            last[piece.source] = index
    dropped: dict[int, list[Piece]] = defaultdict(list)
    for source, channels in held.items():
        if source.op in _COMPOSED:
            continue
        width = sum(end - begin for _, begin, end in source.runs)
        missing = [channel for channel in range(width) if channel not in channels]
        dropped[last[source]] += [Piece(source, channel, channel + 1) for channel in missing]
    return [replace(one, dropped=tuple(dropped[index])) for index, one in enumerate(matches)]


def _gather(pieces: Sequence[Piece], reference: Arrays) -> NDArray[np.floating]:
    arrays = [piece.source.scale(reference[piece.source.name], -1) for piece in pieces]
    parts = [array[:, piece.first : piece.last] for array, piece in zip(arrays, pieces, strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _find(run: Run, holders: Sequence[tuple[int, int, int, FeatureMap]]) -> list[Piece] | None:
    """Pieces that cover a run, in order; None where a channel is missing."""
    _, at, end = run
    pieces = []
    while at < end:
        holder = next((one for one in holders if one[0] <= at < one[1]), None)
        if holder is None:
            return None
        first, last, offset, source = holder
        stop = min(last, end)
        pieces.append(Piece(source, offset + at - first, offset + stop - first))
        at = stop
    return pieces
