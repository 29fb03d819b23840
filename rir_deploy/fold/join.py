"""Which streams become one tensor.

Two atoms may share a convolution and a pointwise op when they go through the same op and their convolutions read the
same atoms at the same geometry: then the joined kernel has no zero block and costs what the parts cost. They should
share one tensor only when their readers read both, or a reader would have to slice, or to multiply by zeros. So the
partition starts from what *may* be joined and is split by every set of atoms that some convolution reads; the result
is the coarsest partition in which each convolution reads whole groups. Streams that never meet come apart by
themselves.

An atom with a ``primary`` (an update r + s of r, as an outer shortcut makes it) follows the group of its primary: the
updates of a group's members, with the members that are not updated passed through, form an *overlay* of that group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rir_deploy.fold.atoms import Atom, Atoms, Read
from rir_deploy.fold.forms import ChannelwiseOp


@dataclass(eq=False)
class Group:
    """Atoms that are one tensor, in channel order. ``base`` is set on overlays: the group this one updates."""

    atoms: list[Atom]
    base: Group | None = None
    updated: set[Atom] = field(default_factory=set)

    @property
    def depth(self) -> int:
        return max(atom.depth for atom in self.atoms)

    @property
    def op(self) -> ChannelwiseOp | None:
        """The op all members go through; an overlay's passed-through members go through none."""
        return next(atom.op for atom in self.atoms if self.base is None or atom in self.updated)

    @property
    def is_kept(self) -> bool:
        """Whether it is a tensor that stays as it is; an overlay of one is not, whatever it passes through."""
        return self.base is None and self.atoms[0].is_kept


@dataclass
class Partition:
    """All groups, and the one that makes each atom. ``orders``: what groups are written by, with kept nodes."""

    groups: list[Group]
    home: dict[Atom, Group]

    @property
    def orders(self) -> dict[Group, tuple[int, int, int]]:
        return {group: (group.depth, 1, position) for position, group in enumerate(self.groups)}


def partition(
    atoms: Atoms, wanted_orders: Sequence[tuple[Atom, ...]], read_at: Iterable[tuple[int, Atom]] = ()
) -> Partition:
    """Group all atoms. ``wanted_orders`` are channel orders that readers outside the fold ask for, and ``read_at`` says
    at which depth a node outside the fold reads which atom.

    A tensor is written once its last member can be, which may be too late for a reader of its first, or never, where
    one member is made of another. The members of such a group stay together only where they are of one depth.
    """
    by_depth, outside = set[Atom](), list(read_at)
    while late := _late(found := _partition(atoms, wanted_orders, by_depth), atoms, outside):
        assert not late <= by_depth, "groups of one depth are written in time"
        by_depth |= late
    return found


def _late(found: Partition, atoms: Atoms, outside: list[tuple[int, Atom]]) -> set[Atom]:
    """The members of all groups that something reads before they are written, and of what those are updates of."""
    orders, late = found.orders, set[Group]()
    for atom in atoms.all:
        group = found.home[atom]
        late |= {found.home[read] for read in atom.reads if not orders[found.home[read]] < orders[group]}
    late |= {found.home[read] for depth, read in outside if found.home[read].depth >= depth}
    late = {group for group in late if not group.is_kept}
    return {atom for group in late for atom in (*group.atoms, *(group.base.atoms if group.base else ()))}


def _partition(atoms: Atoms, wanted_orders: Sequence[tuple[Atom, ...]], by_depth: set[Atom]) -> Partition:
    plain = [atom for atom in atoms.all if atom.primary is None]
    classes: dict[object, list[Atom]] = defaultdict(list)
    for atom in plain:
        if not atom.is_kept:
            classes[_signature(atom), atom in by_depth and atom.depth].append(atom)
    groups = [Group(list(members)) for members in atoms.of_source.values() if members[0].is_kept]
    orders = [tuple(_root(atom) for atom in order) for order in wanted_orders]
    groups += [Group(members) for members in _refine(list(classes.values()), _reading_sets(atoms, orders))]
    home = {atom: group for group in groups for atom in group.atoms}
    _order(groups, home, orders)
    overlays = _overlays([atom for atom in atoms.all if atom.primary is not None], home, by_depth)
    return Partition(groups + overlays, home)


def _signature(atom: Atom) -> object:
    """Atoms of equal signature may be joined; a grouped convolution is joined with nothing."""
    if not all(read.kernel.is_dense for read in atom.main):
        return atom
    reads = frozenset((read.atoms, geometry(read)) for read in atom.main)
    return atom.op, atom.is_skip, atom.extents, reads


def geometry(read: Read) -> tuple[object, ...]:
    """What has to be equal for two kernels to be stacked into one."""
    kernel = read.kernel
    return kernel.strides, kernel.growth, kernel.box, kernel.groups


def _root(atom: Atom) -> Atom:
    while atom.primary is not None:
        atom = atom.primary
    return atom


def _reading_sets(atoms: Atoms, orders: Sequence[tuple[Atom, ...]]) -> list[tuple[Atom, ...]]:
    """The distinct sets of atoms that convolutions read; an updated atom stands for the one it updates.

    A reader outside the fold counts only where no convolution reads what it reads: joining saves a convolution for
    every slice that it costs, but where all readers slice, it saves nothing.
    """
    sets: dict[tuple[Atom, ...], None] = {}
    for atom in atoms.all:
        if atom.main and not atom.is_skip:
            roots = {_root(read_atom) for read in atom.main for read_atom in read.atoms}
            sets.setdefault(tuple(sorted(roots, key=lambda a: a.index)))
    joined = {atom for reading in sets for atom in reading}
    for order in orders:
        sets.setdefault(tuple(sorted(set(order) - joined, key=lambda a: a.index)))
    return list(sets)


def _refine(classes: list[list[Atom]], reading_sets: list[tuple[Atom, ...]]) -> list[list[Atom]]:
    """Split classes until every reading set is a union of them."""
    parts = dict(enumerate(classes))
    part_of = {atom: number for number, members in parts.items() for atom in members}
    for reading in reading_sets:
        touched: dict[int, list[Atom]] = defaultdict(list)
        for atom in reading:
            if atom in part_of:
                touched[part_of[atom]].append(atom)
        for number, inside in touched.items():
            if len(inside) == len(parts[number]):
                continue
            chosen = set(inside)
            fresh = len(parts)
            parts[fresh] = [atom for atom in parts[number] if atom in chosen]
            parts[number] = [atom for atom in parts[number] if atom not in chosen]
            part_of.update(dict.fromkeys(parts[fresh], fresh))
    return sorted(parts.values(), key=lambda members: members[0].index)


def _order(groups: list[Group], home: dict[Atom, Group], orders: Sequence[tuple[Atom, ...]]) -> None:
    """Choose the channel order of every group so that what is added to it, or reads it whole, need not shuffle."""
    wanted: dict[frozenset[Atom], tuple[Atom, ...]] = {}
    for order in orders:
        wanted.setdefault(frozenset(order), order)
    for group in sorted(groups, key=lambda g: g.depth):
        if group.is_kept or len(group.atoms) == 1:
            continue
        followed = _order_of_skips(group, home)
        if followed is not None:
            group.atoms.sort(key=lambda atom: followed[atom])
        elif (found := wanted.get(frozenset(group.atoms))) is not None and len(found) == len(group.atoms):
            group.atoms = list(found)


def _order_of_skips(group: Group, home: dict[Atom, Group]) -> dict[Atom, int] | None:
    """Member to position of what is added to it, where all of that lies in one group."""
    firsts = {atom: _root(atom.skips[0][0]) for atom in group.atoms if atom.skips}
    homes = {home[first] for first in firsts.values()}
    if len(firsts) < len(group.atoms) or len(homes) != 1:
        return None
    (other,) = homes
    return {atom: other.atoms.index(first) for atom, first in firsts.items()}


def _overlays(updates: list[Atom], home: dict[Atom, Group], by_depth: set[Atom]) -> list[Group]:
    made: list[Group] = []
    by_base: dict[object, list[Group]] = defaultdict(list)
    through: dict[ChannelwiseOp | None, set[Atom]] = defaultdict(set)
    for atom in updates:
        assert atom.primary is not None
        through[atom.op].add(atom.primary)
    for atom in sorted(updates, key=lambda a: (a.depth, a.index)):
        assert atom.primary is not None
        base = home[atom.primary]
        if atom.op is not None and not through[atom.op].issuperset(base.atoms):
            # One node can serve the whole tensor only if every member goes through the op.
            home[atom] = Group([atom], base, {atom})
            made.append(home[atom])
            continue
        place, key = base.atoms.index(atom.primary), (base, atom.op, atom in by_depth and atom.depth)
        fitting = [group for group in by_base[key] if group.atoms[place] is atom.primary]
        if not fitting:
            fitting = [Group(list(base.atoms), base)]
            by_base[key].append(fitting[0])
            made.append(fitting[0])
        fitting[0].atoms[place] = atom
        fitting[0].updated.add(atom)
        home[atom] = fitting[0]
    return made
