"""The channels of every source, cut wherever a reader starts or stops reading, and what each piece reads.

After this step every convolution reads whole atoms, so that joining streams is a question about sets of atoms and no
longer about channel ranges. The reads of an atom are split by role:

    main    what its convolution reads, all at the same depth of the graph
    skips   what is merely added: identities of other atoms, and convolutions that reach back over a nonlinearity
            (those become atoms of their own, marked ``is_skip``)

An atom without convolution of its own that only adds identities has a ``primary``: the atom it is an update of. An
update stands at the same ``level`` as what it updates, since one nonlinearity has been passed on the way to both;
``depth`` orders the writing.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.algebra import add
from rir_deploy.fold.cut import cut
from rir_deploy.fold.forms import (
    Affine,
    ChannelwiseOp,
    Extents,
    Segment,
    Source,
    Term,
    term_columns,
)
from rir_deploy.fold.kernels import Array, Kernel, regroup, take_columns
from rir_deploy.fold.nested import values_read
from rir_deploy.fold.sums import merge_terms


@dataclass(frozen=True, eq=False)
class Read:
    """kernel * [atoms...]; more than one atom only where the kernel's groups do not let it be cut."""

    atoms: tuple[Atom, ...]
    kernel: Kernel

    @property
    def depth(self) -> int:
        return max(atom.depth for atom in self.atoms)

    @property
    def level(self) -> int:
        return max(atom.level for atom in self.atoms)


@dataclass(eq=False)
class Atom:
    """``rows`` channels that are always read together. ``origin`` is where they stood in the graph that came in,
    at the channels of ``origin_runs`` (first, last + 1).

    ``extents`` are the spatial lengths of the result, ``inner`` those before its op (pooling changes them).
    """

    index: int
    rows: int
    extents: Extents
    inner: Extents
    origin: ir.Value
    origin_runs: tuple[tuple[int, int], ...]
    depth: int = 0
    level: int = 0
    op: ChannelwiseOp | None = None
    is_kept: bool = False
    is_skip: bool = False
    primary: Atom | None = None
    main: tuple[Read, ...] = ()
    skips: tuple[tuple[Atom, ...], ...] = ()
    bias: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def reads(self) -> list[Atom]:
        """Everything that it is made of."""
        spans = (*(read.atoms for read in self.main), *self.skips, () if self.primary is None else (self.primary,))
        return [atom for span in spans for atom in span]


class Atoms:
    """All atoms of a normal form, in an order in which each comes after what it reads."""

    def __init__(self, nf: NormalForm) -> None:
        self.all: list[Atom] = []
        self.of_source: dict[Source, list[Atom]] = {}
        self._starts: dict[Source, list[int]] = {}
        self._node_depth: dict[ir.Node, int] = {}
        self._nf = nf
        pieces = cut(nf)
        kept = iter(nf.kept)
        for source in nf.sources:
            if source in pieces:
                self._build(source, pieces[source], kept)

    def sequence(self, form: Affine) -> list[tuple[Atom, ...] | Segment]:
        """What a value consists of: runs of atoms, and segments that read nothing (constants)."""
        return [self.span(segment.terms[0]) if segment.terms else segment for segment in form.segments if segment.rows]

    def span(self, term: Term) -> tuple[Atom, ...]:
        starts = self._starts[term.source]
        first, last = bisect_left(starts, term.start), bisect_left(starts, term.stop)
        return tuple(self.of_source[term.source][first:last])

    def depth_of(self, node: ir.Node) -> int:
        """The depth of a kept node: one more than the deepest thing it reads."""
        depth = self._node_depth.get(node)
        if depth is None:
            depth = 1 + max((self._value_depth(value) for value in values_read(node)), default=0)
            self._node_depth[node] = depth
        return depth

    def _value_depth(self, value: ir.Value) -> int:
        form = self._nf.form(value)
        if form is not None:
            terms = (term for segment in form.segments for term in segment.terms)
            return max((atom.depth for term in terms for atom in self.span(term)), default=0)
        producer = value.producer()
        return 0 if producer is None else self.depth_of(producer)

    def _build(self, source: Source, pieces: list[Segment], kept: Iterable[ir.Node]) -> None:
        atoms, start = [], 0
        for piece in pieces:
            inner, runs = source.operand_extents or source.extents, _origin_runs(source, start, start + piece.rows)
            atom = Atom(len(self.all), piece.rows, source.extents, inner, source.origin, runs, op=source.op)
            atom.is_kept = source.is_kept
            if source.is_kept:
                producer = source.origin.producer()
                atom.depth = atom.level = 0 if producer is None else self._kept_depth(producer, kept)
            else:
                atom.bias = piece.bias
                self._assign_roles(atom, self._reads_of(piece))
                atom.index = len(self.all)
            self.all.append(atom)
            atoms.append(atom)
            start += piece.rows
        self.of_source[source] = atoms
        starts = np.cumsum([0, *(piece.rows for piece in pieces)]).tolist()
        self._starts[source] = starts[:-1]

    def _kept_depth(self, producer: ir.Node, kept: Iterable[ir.Node]) -> int:
        # Settle kept nodes in graph order, so that the recursion in depth_of never goes deep.
        while producer not in self._node_depth:
            self.depth_of(next(iter(kept)))
        return self._node_depth[producer]

    def _reads_of(self, piece: Segment) -> list[Read]:
        """The terms of a piece by atom, added up wherever they read the same one."""
        dense: dict[tuple[Source, int, int], list[Term]] = defaultdict(list)
        spanning: list[Term] = []
        for term in piece.terms:
            borders = self._borders(term)
            parts = [term_columns(term, *border) for border in borders]
            whole = [part for part in parts if part is not None]
            if len(whole) < len(parts):
                spanning.append(term)
            for part in whole if len(whole) == len(parts) else []:
                dense[(part.source, part.start, part.stop)].append(part)
        merged = {key: list(merge_terms(terms)) for key, terms in dense.items()}
        reads = [Read(self.span(t), t.kernel) for t in spanning if not self._absorb(t, merged)]
        return [Read(self.span(t), t.kernel) for terms in merged.values() for t in terms] + reads

    def _borders(self, term: Term) -> list[tuple[int, int]]:
        cuts = [*(s for s in self._starts[term.source] if term.start <= s < term.stop), term.stop]
        return list(itertools.pairwise(cuts))

    def _absorb(self, term: Term, merged: dict[tuple[Source, int, int], list[Term]]) -> bool:
        """Add a kernel that spans atoms to the dense kernels of those atoms, if each of them can take its part."""
        full = regroup(term.kernel, 1)
        updates: list[tuple[list[Term], int, Kernel]] = []
        for start, stop in self._borders(term):
            taken = take_columns(full, start - term.start, stop - term.start)
            terms = merged.get((term.source, start, stop), [])
            sums = [add(t.kernel, taken[0]) if taken is not None else None for t in terms]
            place = next((i for i, kernel in enumerate(sums) if kernel is not None), None)
            if place is None:
                return False
            kernel = sums[place]
            assert kernel is not None
            updates.append((terms, place, kernel))
        for terms, place, kernel in updates:
            terms[place] = Term(terms[place].source, terms[place].start, terms[place].stop, kernel)
        return True

    def _assign_roles(self, atom: Atom, reads: list[Read]) -> None:
        identities = [read for read in reads if read.kernel.is_identity]
        others = [read for read in reads if not read.kernel.is_identity]
        deepest = max((read.level for read in others), default=-1)
        candidates = [r for r in identities if r.level > deepest and len(r.atoms) == 1]
        if candidates and not atom.bias.any():
            primary = max(candidates, key=lambda read: (read.level, -read.atoms[0].index))
            atom.primary = primary.atoms[0]
            identities.remove(primary)
            main: list[Read] = []
        elif not others:  # identities and a bias: nothing to convolve, so they are the main reads themselves
            main, identities = identities[:1], identities[1:]
        else:
            main = [read for read in others if read.level == deepest]
        back = [read for read in others if read not in main]
        atom.main = tuple(main)
        atom.skips = tuple(read.atoms for read in identities)
        if back:
            atom.skips += ((self._skip(atom, back),),)
        below = [a for read in main for a in read.atoms] + [a for span in atom.skips for a in span]
        below += [atom.primary] if atom.primary is not None else []
        atom.depth = 1 + max(other.depth for other in below)
        updates = atom.primary is not None and atom.op is None
        atom.level = atom.primary.level if updates and atom.primary else 1 + max(other.level for other in below)

    def _skip(self, atom: Atom, reads: list[Read]) -> Atom:
        """Convolutions that reach back over a nonlinearity, as an atom that is only added."""
        place = (atom.rows, atom.inner, atom.inner, atom.origin, atom.origin_runs)
        skip = Atom(0, *place, is_skip=True, bias=np.zeros(atom.rows))
        self._assign_roles(skip, reads)
        skip.index = len(self.all)
        self.all.append(skip)
        return skip


def _origin_runs(source: Source, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Channels start:stop of a source as runs of channels of its origin."""
    places = range(source.channels) if source.origin_channels is None else source.origin_channels
    runs: list[tuple[int, int]] = []
    for place in places[start:stop]:
        at = source.origin_start + place
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return tuple(runs)


def rows_of(atoms: Sequence[Atom]) -> int:
    return sum(atom.rows for atom in atoms)
