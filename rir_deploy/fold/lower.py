"""From groups of atoms back to a graph, with the fewest nodes that compute them.

A group becomes one convolution for every geometry that its members read (normally one), the additions of its skips,
and its op. A tensor that someone reads in another shape than it has is sliced, concatenated or padded; for a family
that folds cleanly none of that happens.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from rir_deploy.fold import kernels
from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.atoms import Atom, Atoms, Read, rows_of, values_read
from rir_deploy.fold.forms import Extents, Segment
from rir_deploy.fold.join import Group, Partition, geometry
from rir_deploy.fold.kernels import Array, Kernel
from rir_deploy.fold.tensors import Tensors
from rir_deploy.fold.writer import Attributes, Writer

# On every tensor the fold makes: which channels of which tensor of the incoming graph its channels are.
MEMBERS_KEY = "rir_deploy.members"


class Lowering:
    """Writes the nodes of a partition, in order; ``replaced`` says which tensor now holds what an old one held."""

    def __init__(self, nf: NormalForm, atoms: Atoms, partition: Partition, taken: Iterable[str]) -> None:
        self.writer = Writer(_float_type(nf), taken)
        self.replaced: dict[ir.Value, ir.Value] = {}
        self._nf, self._atoms = nf, atoms
        self._tensors = Tensors(partition, self.writer)
        self._write(partition)

    def _write(self, partition: Partition) -> None:
        """Groups and kept nodes by depth: everything is written after what it reads."""
        units: list[tuple[int, int, int, Group | ir.Node]] = []
        for position, group in enumerate(partition.groups):
            if not group.is_kept:
                units.append((group.depth, 1, position, group))
        for position, node in enumerate(self._nf.kept):
            units.append((self._atoms.depth_of(node), 0, position, node))
        for *_, unit in sorted(units, key=lambda unit: unit[:3]):
            if isinstance(unit, Group):
                self._tensors.of[unit] = self._group(unit)
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

    def _group(self, group: Group) -> ir.Value:
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
            result = self.writer.node(template.op_type, inputs, template.attributes, self._label(group))
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
            result = part if result is None else self.writer.node("Add", [result, part], {}, self._label(group, "sum"))
        assert result is not None
        return result, bias

    def _dense(self, group: Group, reads: Sequence[Read], bias: Array) -> tuple[ir.Value, Array]:
        geometry_key = geometry(reads[0])
        order = self._reading_order([read.atoms[0] for read in reads])
        blocks = []
        for atom in group.atoms:
            by_atom = {read.atoms[0]: read.kernel for read in atom.main if geometry(read) == geometry_key}
            blocks.append([by_atom[source] for source in order])
        return self._conv(self._tensors.cover(order), kernels.block_matrix(blocks), bias, group), np.zeros(0)

    def _grouped(self, group: Group, read: Read, bias: Array) -> tuple[ir.Value, Array]:
        kernel, source = read.kernel, self._tensors.cover(read.atoms)
        if kernel.is_identity:
            return source, bias
        subsampled = all(o == 0 and g == 0 for o, g in zip(kernel.offsets, kernel.growth, strict=True))
        if kernel.is_selection and subsampled:
            return self._tensors.subsample(source, kernel.strides), bias
        if kernel.is_diagonal and kernel.is_pointwise:
            return self._normalization(source, kernel.weight.reshape(-1), bias, group), np.zeros(0)
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

    def _add_skips(self, result: ir.Value, group: Group, layer: Sequence[tuple[Atom, ...] | None]) -> ir.Value:
        """Add one skip of every member; a member without one (None) adds nothing to its channels."""
        label = self._label(group, "sum")
        if all(span is not None for span in layer):
            whole = tuple(atom for span in layer if span is not None for atom in span)
            return self.writer.node("Add", [result, self._tensors.cover(whole)], {}, label)
        masked = self._masked(group, layer)
        if masked is not None:
            return self.writer.node("Add", [result, masked], {}, label)
        parts: list[tuple[Atom, ...] | Segment] = [
            Segment(atom.rows, (), np.zeros(atom.rows)) if span is None else span
            for atom, span in zip(group.atoms, layer, strict=True)
        ]
        return self.writer.node("Add", [result, self._tensors.pad_runs(parts)], {}, label)

    def _masked(self, group: Group, layer: Sequence[tuple[Atom, ...] | None]) -> ir.Value | None:
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
                factor = self._channel_constant(mask, other.atoms[0], self._label(group, "mask"))
                return self.writer.node("Mul", [self._tensors.of[other], factor], {}, self._label(group, "masked"))
        return None

    def _conv(self, source: ir.Value, kernel: Kernel, bias: Array, group: Group) -> ir.Value:
        before, after = kernel.pads
        attributes: Attributes = {
            "dilations": list(kernel.dilations),
            "group": kernel.groups,
            "kernel_shape": list(kernel.taps),
            "pads": [*before, *after],
            "strides": list(kernel.strides),
        }
        label = self._label(group, "conv")
        inputs = [source, self.writer.constant(kernel.weight, f"{label}.weight")]
        if bias.any():
            inputs.append(self.writer.constant(bias, f"{label}.bias"))
        return self._describe(self.writer.node("Conv", inputs, attributes, label), group, group.atoms[0].inner)

    def _normalization(self, source: ir.Value, scale: Array, bias: Array, group: Group) -> ir.Value:
        """A scale and an offset a channel, as the one node that says so."""
        label = self._label(group, "scale")
        zeros = np.zeros(len(scale))
        offset = bias if bias.size else zeros
        parameters = {"scale": scale, "offset": offset, "mean": zeros, "var": np.ones(len(scale))}
        inputs = [source, *(self.writer.constant(array, f"{label}.{key}") for key, array in parameters.items())]
        return self.writer.node("BatchNormalization", inputs, {"epsilon": 0.0}, label)

    def _channel_constant(self, vector: Array, like: Atom, name: str) -> ir.Value:
        return self.writer.constant(vector.reshape((1, -1) + (1,) * len(like.extents)), name)

    def _label(self, group: Group, suffix: str = "") -> str:
        origins = dict.fromkeys(str(atom.origin.name) for atom in group.atoms)
        name = "+".join(itertools.islice(origins, 2)) + ("+..." if len(origins) > 2 else "")
        return f"{name}.{suffix}" if suffix else name

    def _describe(self, value: ir.Value, group: Group, extents: Extents) -> ir.Value:
        """Record whose channels these are, and the shape as far as it is known."""
        node = value.producer()
        if node is not None and node in self.writer.nodes[-1:]:
            members = [[a.origin.name, a.origin_start, a.origin_start + a.rows] for a in group.atoms]
            node.metadata_props[MEMBERS_KEY] = json.dumps(members)
            first = group.atoms[0]
            batch = first.origin.shape[0] if first.origin.shape is not None else None
            sizes = [extent if isinstance(extent, int) else None for extent in extents]
            value.shape = ir.Shape([batch, rows_of(group.atoms), *sizes])
        return value


def _float_type(nf: NormalForm) -> ir.DataType:
    types = {source.origin.dtype for source in nf.sources if source.origin.dtype is not None}
    return next(iter(types)) if len(types) == 1 else ir.DataType.FLOAT


def read_members(node: ir.Node) -> list[tuple[str, int, int]]:
    """What `MEMBERS_KEY` of a folded node says: (tensor of the unfolded graph, first channel, last channel + 1)."""
    text = node.metadata_props.get(MEMBERS_KEY)
    return [] if text is None else [(str(name), int(a), int(b)) for name, a, b in json.loads(text)]
