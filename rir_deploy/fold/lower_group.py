"""One group of atoms as nodes: its convolutions, what is added to them, and its op.

A group becomes one convolution for every geometry that its members read (normally one), the additions of its skips,
and its op. A tensor that someone reads in another shape than it has is sliced, concatenated or padded; for a family
that folds cleanly none of that happens.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.algebra import block_matrix
from rir_deploy.fold.atoms import Atom, Read, rows_of
from rir_deploy.fold.branches import note_branches
from rir_deploy.fold.forms import Extents, Segment
from rir_deploy.fold.join import Group, geometry
from rir_deploy.fold.kernels import Array, Kernel
from rir_deploy.fold.members import write_members
from rir_deploy.fold.tensors import Tensors
from rir_deploy.fold.writer import Attributes, Writer

Layer = Sequence["tuple[Atom, ...] | None"]


class GroupLowering:
    """Writes groups. ``lean``: no masks, and no more constants than an offset and a scale need."""

    def __init__(self, tensors: Tensors, writer: Writer, lean: bool) -> None:
        self._tensors, self._writer, self._lean = tensors, writer, lean

    def write(self, group: Group) -> ir.Value:
        """The tensor that holds the group."""
        if group.base is not None:
            line = tuple(a.primary if a in group.updated and a.primary is not None else a for a in group.atoms)
            result, bias = self._tensors.cover(line), np.zeros(0)
        else:
            result, bias = self._convolutions(group)
        for layer in itertools.zip_longest(*(self._skips(group, atom) for atom in group.atoms)):
            result = self._add_skips(result, group, layer)
        if bias.any():
            result = self._tensors.add_bias(result, bias)
        if group.op is not None:
            template = group.op.template
            inputs = [result, *template.inputs[1:]]
            result = self._writer.node(template.op_type, inputs, template.attributes, _label(group))
        return self._describe(result, group, group.atoms[0].extents)

    def _skips(self, group: Group, atom: Atom) -> tuple[tuple[Atom, ...], ...]:
        return atom.skips if group.base is None or atom in group.updated else ()

    def _convolutions(self, group: Group) -> tuple[ir.Value, Array]:
        """The sum of a group's convolutions, and the bias where no convolution could take it."""
        first = group.atoms[0]
        bias = np.concatenate([atom.bias for atom in group.atoms])
        classes: dict[object, list[Read]] = defaultdict(list)
        for read in first.main:
            key = geometry(read) if read.kernel.is_dense else read
            classes[key].append(read)
        result: ir.Value | None = None
        for reads in classes.values():
            if reads[0].kernel.is_dense:
                part, bias = self._dense(group, reads, bias)
            else:
                part, bias = self._grouped(group, reads[0], bias)
            result = part if result is None else self._writer.node("Add", [result, part], {}, _label(group, "sum"))
        assert result is not None
        return result, bias

    def _dense(self, group: Group, reads: Sequence[Read], bias: Array) -> tuple[ir.Value, Array]:
        geometry_key = geometry(reads[0])
        order = self._reading_order([read.atoms[0] for read in reads])
        blocks = []
        for atom in group.atoms:
            by_atom = {read.atoms[0]: read.kernel for read in atom.main if geometry(read) == geometry_key}
            blocks.append([by_atom[source] for source in order])
        return self._conv(self._tensors.cover(order), block_matrix(blocks), bias, group), np.zeros(0)

    def _grouped(self, group: Group, read: Read, bias: Array) -> tuple[ir.Value, Array]:
        kernel, source = read.kernel, self._tensors.cover(read.atoms)
        if kernel.is_identity:
            return source, bias
        if kernel.is_selection:
            before, after = kernel.pads
            moved = self._tensors.shift(source, before, after) if any(before + after) else source
            strided = any(step > 1 for step in kernel.strides)
            return self._tensors.subsample(moved, kernel.strides) if strided else moved, bias
        if kernel.is_diagonal and kernel.is_pointwise:
            return self._normalization(source, kernel.weight.reshape(-1), bias, group)
        return self._conv(source, kernel, bias, group), np.zeros(0)

    def _reading_order(self, sources: list[Atom]) -> tuple[Atom, ...]:
        """The atoms in the order of the tensor that holds exactly them, if there is one."""
        wanted = set(sources)
        for group in self._tensors.containing[sources[0]]:
            if set(group.atoms) == wanted:
                return tuple(group.atoms)
        return tuple(
            sorted(sources, key=lambda a: (self._tensors.home[a].atoms[0].index, self._tensors.home[a].atoms.index(a)))
        )

    def _add_skips(self, result: ir.Value, group: Group, layer: Layer) -> ir.Value:
        """Add one skip of every member; a member without one (None) adds nothing to its channels."""
        label = _label(group, "sum")
        if all(span is not None for span in layer):
            whole = tuple(atom for span in layer if span is not None for atom in span)
            return self._writer.node("Add", [result, self._tensors.cover(whole)], {}, label)
        masked = None if self._lean else self._masked(group, layer)
        if masked is not None:
            return self._writer.node("Add", [result, masked], {}, label)
        parts: list[tuple[Atom, ...] | Segment] = [
            Segment(atom.rows, (), np.zeros(atom.rows)) if span is None else span
            for atom, span in zip(group.atoms, layer, strict=True)
        ]
        return self._writer.node("Add", [result, self._tensors.pad_runs(parts)], {}, label)

    def _masked(self, group: Group, layer: Layer) -> ir.Value | None:
        """A tensor that holds what is added at the very channels it is added to, times zeros and ones."""
        present = [span for span in layer if span is not None]
        for other in self._tensors.containing[present[0][0]]:
            places = dict(zip(other.atoms, itertools.accumulate([0, *(a.rows for a in other.atoms)]), strict=False))
            starts = itertools.accumulate([0, *(atom.rows for atom in group.atoms)])
            aligned = all(
                span is None or (span[0] in places and places[span[0]] == start and len(span) == 1)
                for span, start in zip(layer, starts, strict=False)
            )
            if aligned and rows_of(other.atoms) == rows_of(group.atoms) and other in self._tensors.of:
                mask = np.concatenate(
                    [np.full(a.rows, 0.0 if s is None else 1.0) for a, s in zip(group.atoms, layer, strict=True)]
                )
                tensor = self._tensors.of[other]
                factor = self._writer.mask(_by_channel(mask, group), _label(group, "mask"), tensor)
                return self._writer.node("Mul", [tensor, factor], {}, _label(group, "masked"))
        return None

    def _conv(self, source: ir.Value, kernel: Kernel, bias: Array, group: Group) -> ir.Value:
        before, after = kernel.pads
        crops = [[min(pad, 0) for pad in side] for side in (before, after)]
        if any(crops[0] + crops[1]):  # a convolution cannot crop
            source = self._tensors.shift(source, *crops)
        attributes: Attributes = {
            "dilations": list(kernel.dilations),
            "group": kernel.groups,
            "kernel_shape": list(kernel.taps),
            "pads": [max(pad, 0) for pad in (*before, *after)],
            "strides": list(kernel.strides),
        }
        label = _label(group, "conv")
        inputs = [source, self._writer.constant(kernel.weight, f"{label}.weight", source)]
        if bias.any():
            inputs.append(self._writer.constant(bias, f"{label}.bias", source))
        result = self._describe(self._writer.node("Conv", inputs, attributes, label), group, group.atoms[0].inner)
        note_branches(self._writer.nodes[-1], kernel.branches)
        return result

    def _normalization(self, source: ir.Value, scale: Array, bias: Array, group: Group) -> tuple[ir.Value, Array]:
        """A scale and an offset a channel: one node that does both, unless its constants are too many."""
        label = _label(group, "scale")
        if self._lean or not bias.any():
            factor = scale[:1] if (scale == scale[0]).all() else _by_channel(scale, group)
            return self._writer.node("Mul", [source, self._writer.constant(factor, label, source)], {}, label), bias
        zeros, ones = np.zeros(len(scale)), np.ones(len(scale))
        parameters = {"scale": scale, "offset": bias, "mean": zeros, "var": ones}
        inputs = [source, *(self._writer.constant(a, f"{label}.{key}", source) for key, a in parameters.items())]
        return self._writer.node("BatchNormalization", inputs, {"epsilon": 0.0}, label), np.zeros(0)

    def _describe(self, value: ir.Value, group: Group, extents: Extents) -> ir.Value:
        """Record whose channels these are, and the shape as far as it is known."""
        node = value.producer()
        if node is not None and node in self._writer.nodes[-1:]:
            write_members(node, group.atoms)
            first = group.atoms[0]
            batch = first.origin.shape[0] if first.origin.shape is not None else None
            sizes = [extent if isinstance(extent, int) else None for extent in extents]
            value.shape = ir.Shape([batch, rows_of(group.atoms), *sizes])
        return value


def _by_channel(vector: Array, group: Group) -> Array:
    return vector.reshape((1, -1) + (1,) * len(group.atoms[0].extents))


def _label(group: Group, suffix: str = "") -> str:
    origins = dict.fromkeys(str(atom.origin.name) for atom in group.atoms)
    name = "+".join(itertools.islice(origins, 2)) + ("+..." if len(origins) > 2 else "")
    return f"{name}.{suffix}" if suffix else name
