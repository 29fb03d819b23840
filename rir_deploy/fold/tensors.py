"""Tensors in the shape a reader wants: as they stand where possible, else sliced, concatenated or padded."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.atoms import Atom, rows_of
from rir_deploy.fold.forms import Segment
from rir_deploy.fold.join import Group, Partition
from rir_deploy.fold.kernels import Array
from rir_deploy.fold.writer import INT64_MAX, Writer


class Tensors:
    """Which tensor holds which atoms. Set ``of`` for a group once it is written."""

    def __init__(self, partition: Partition, writer: Writer) -> None:
        self.of: dict[Group, ir.Value] = {}
        self.home = partition.home
        self.containing: dict[Atom, list[Group]] = defaultdict(list)
        self._writer = writer
        self._assembled: dict[object, ir.Value] = {}
        for group in partition.groups:
            for atom in group.atoms:
                self.containing[atom].append(group)
            if group.is_kept:
                self.of[group] = group.atoms[0].origin

    def assemble(self, parts: Sequence[tuple[Atom, ...] | Segment]) -> ir.Value:
        runs = [part for part in parts if not isinstance(part, Segment)]
        if len(runs) == len(parts):
            return self.cover(tuple(itertools.chain.from_iterable(runs)))
        if not runs:
            raise AssertionError("a feature map that reads nothing: no rule lets one through")
        result = self.pad_runs(parts)
        bias = np.concatenate([part.bias if isinstance(part, Segment) else np.zeros(rows_of(part)) for part in parts])
        return self.add_bias(result, bias) if bias.any() else result

    def cover(self, atoms: tuple[Atom, ...]) -> ir.Value:
        """The tensor whose channels are these atoms, in this order."""
        for group in self.containing[atoms[0]]:
            if tuple(group.atoms) == atoms and group in self.of:
                return self.of[group]
        if atoms not in self._assembled:
            pieces = [self._slice(group, start, stop) for group, start, stop in self._runs(atoms)]
            single = len(pieces) == 1
            self._assembled[atoms] = pieces[0] if single else self._writer.node("Concat", pieces, {"axis": 1}, "joined")
        return self._assembled[atoms]

    def pad_runs(self, parts: Sequence[tuple[Atom, ...] | Segment]) -> ir.Value:
        """Runs of atoms with channels of zeros between them: every run is padded up to the next."""
        before, pieces, run, after = 0, [], tuple[Atom, ...](), 0
        for part in [*parts, None]:
            if isinstance(part, Segment):
                before, after = (before, after + part.rows) if run else (before + part.rows, after)
            elif run and (after or part is None):
                pieces.append(self._pad(self.cover(run), before, after))
                before, after, run = 0, 0, part or ()
            else:
                run += part or ()
        return pieces[0] if len(pieces) == 1 else self._writer.node("Concat", pieces, {"axis": 1}, "joined")

    def add_bias(self, value: ir.Value, bias: Array) -> ir.Value:
        axes = len(value.shape) - 2 if value.shape is not None else 2
        offset = bias[:1] if (bias == bias[0]).all() else bias.reshape((1, -1) + (1,) * axes)
        constant = self._writer.constant(offset, f"{value.name}.bias", value)
        return self._writer.node("Add", [value, constant], {}, f"{value.name}_biased")

    def shift(self, value: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
        """Zeros around the spatial axes; negative amounts crop."""
        pads = self._writer.integers([0, 0, *before, 0, 0, *after])
        return self._writer.node("Pad", [value, pads], {"mode": "constant"}, f"{value.name}_padded")

    def subsample(self, value: ir.Value, steps: Sequence[int]) -> ir.Value:
        axes = [axis + 2 for axis, step in enumerate(steps) if step > 1]
        lists = [0] * len(axes), [INT64_MAX] * len(axes), axes, [step for step in steps if step > 1]
        return self._writer.node(
            "Slice", [value, *(self._writer.integers(list(x)) for x in lists)], {}, f"{value.name}_strided"
        )

    def _runs(self, atoms: tuple[Atom, ...]) -> list[tuple[Group, int, int]]:
        """Consecutive atoms of one tensor, as ranges of its members."""
        runs: list[tuple[Group, int, int]] = []
        for atom in atoms:
            group = self.home[atom]
            place = group.atoms.index(atom)
            if runs and runs[-1][0] is group and runs[-1][2] == place:
                runs[-1] = (group, runs[-1][1], place + 1)
            else:
                runs.append((group, place, place + 1))
        return runs

    def _slice(self, group: Group, first: int, last: int) -> ir.Value:
        if (first, last) == (0, len(group.atoms)):
            return self.of[group]
        start = rows_of(group.atoms[:first])
        stop = start + rows_of(group.atoms[first:last])
        bounds = [self._writer.integers(values) for values in ([start], [stop], [1])]
        key = ("slice", group, start, stop)
        if key not in self._assembled:
            name = f"{self.of[group].name}_{start}_{stop}"
            self._assembled[key] = self._writer.node("Slice", [self.of[group], *bounds], {}, name)
        return self._assembled[key]

    def _pad(self, value: ir.Value, before: int, after: int) -> ir.Value:
        if not before and not after:
            return value
        axes = len(value.shape) - 2 if value.shape is not None else 2
        pads = [0, before, *[0] * axes, 0, after, *[0] * axes]
        return self._writer.node(
            "Pad", [value, self._writer.integers(pads)], {"mode": "constant"}, f"{value.name}_padded"
        )
