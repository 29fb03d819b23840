"""From groups of atoms back to a graph: every group and every kept node is written after what it reads."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.atoms import Atoms
from rir_deploy.fold.join import Group, Partition
from rir_deploy.fold.lower_group import GroupLowering
from rir_deploy.fold.nested import values_read
from rir_deploy.fold.tensors import Tensors
from rir_deploy.fold.writer import Writer


class Lowering:
    """Writes the nodes of a partition, in order; ``replaced`` says which tensor now holds what an old one held.

    ``lean`` writes no constants that the fewest nodes would need and a few more nodes could do without.
    """

    def __init__(
        self, nf: NormalForm, atoms: Atoms, partition: Partition, taken: Iterable[str], lean: bool = False
    ) -> None:
        self.writer = Writer(taken)
        self.replaced: dict[ir.Value, ir.Value] = {}
        self._nf, self._atoms = nf, atoms
        self._tensors = Tensors(partition, self.writer)
        self._groups = GroupLowering(self._tensors, self.writer, lean)
        self._write(partition)

    def _write(self, partition: Partition) -> None:
        units: list[tuple[int, int, int, Group | ir.Node]] = []
        for position, group in enumerate(partition.groups):
            if not group.is_kept:
                units.append((group.depth, 1, position, group))
        for position, node in enumerate(self._nf.kept):
            units.append((self._atoms.depth_of(node), 0, position, node))
        for *_, unit in sorted(units, key=lambda unit: unit[:3]):
            if isinstance(unit, Group):
                self._tensors.of[unit] = self._groups.write(unit)
            else:
                self._kept_node(unit)
        for value in self._nf.required:
            self._replace(value)

    def _kept_node(self, node: ir.Node) -> None:
        for value in values_read(node):
            self._replace(value)
        self.writer.nodes.append(node)

    def _replace(self, value: ir.Value) -> None:
        """Find the tensor that now holds what ``value`` held."""
        form = self._nf.form(value)
        if form is not None and value not in self.replaced:
            self.replaced[value] = self._tensors.assemble(self._atoms.sequence(form))
