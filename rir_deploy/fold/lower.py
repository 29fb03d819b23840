"""From groups of atoms back to a graph, with the fewest nodes that compute them.

A group becomes one convolution for every geometry that its members read (normally one), the additions of its skips,
and its op. A tensor that someone reads in another shape than it has is sliced, concatenated or padded; for a family
that folds cleanly none of that happens.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from rir_deploy.fold import kernels
from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.atoms import Atom, Atoms, Read, rows_of
from rir_deploy.fold.forms import Extents, Segment
from rir_deploy.fold.join import Group, Partition, geometry
from rir_deploy.fold.kernels import Array, Kernel

# On every tensor the fold makes: which channels of which tensor of the incoming graph its channels are.
MEMBERS_KEY = "rir_deploy.members"
_MAX = np.iinfo(np.int64).max


class Lowering:
    """Writes the nodes of a partition, in order, into ``nodes`` and their weights into ``initializers``."""

    def __init__(self, nf: NormalForm, atoms: Atoms, partition: Partition, taken: Iterable[str]) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.replaced: dict[ir.Value, ir.Value] = {}
        self._nf, self._atoms, self._home = nf, atoms, partition.home
        self._tensor: dict[Group, ir.Value] = {}
        self._containing: dict[Atom, list[Group]] = defaultdict(list)
        self._assembled: dict[object, ir.Value] = {}
        self._names = set(taken)
        self._dtype = _float_type(nf)
        for group in partition.groups:
            for atom in group.atoms:
                self._containing[atom].append(group)
            if group.is_kept:
                self._tensor[group] = group.atoms[0].origin
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
                self._tensor[unit] = self._group(unit)
            else:
                self._kept_node(unit)
        for value in self._nf.required:
            self._replace(value)

    # --- what stays -----------------------------------------------------------------------------------------------

    def _kept_node(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is not None:
                self._replace(value)
        self.nodes.append(node)

    def _replace(self, value: ir.Value) -> None:
        """Find the tensor that now holds what ``value`` held."""
        form = self._nf.form(value)
        if form is not None and value not in self.replaced:
            self.replaced[value] = self._assemble(self._atoms.sequence(form), value)

    def _assemble(self, parts: Sequence[tuple[Atom, ...] | Segment], value: ir.Value) -> ir.Value:
        runs = [part for part in parts if not isinstance(part, Segment)]
        if len(runs) == len(parts):
            return self._cover(tuple(itertools.chain.from_iterable(runs)))
        if not runs:
            raise AssertionError(f"'{value.name}' is constant, which no rule lets through")
        result = self._pad_runs(parts)
        bias = np.concatenate([part.bias if isinstance(part, Segment) else np.zeros(rows_of(part)) for part in parts])
        return self._add_bias(result, bias) if bias.any() else result

    def _pad_runs(self, parts: Sequence[tuple[Atom, ...] | Segment]) -> ir.Value:
        """Runs of atoms with channels of zeros between them: every run is padded up to the next."""
        before, pieces, run, after = 0, [], tuple[Atom, ...](), 0
        for part in [*parts, None]:
            if isinstance(part, Segment):
                before, after = (before, after + part.rows) if run else (before + part.rows, after)
            elif run and (after or part is None):
                pieces.append(self._pad(self._cover(run), before, after))
                before, after, run = 0, 0, part or ()
            else:
                run += part or ()
        return pieces[0] if len(pieces) == 1 else self._emit("Concat", pieces, {"axis": 1}, "joined")

    # --- groups ---------------------------------------------------------------------------------------------------

    def _group(self, group: Group) -> ir.Value:
        if group.base is not None:
            line = tuple(a.primary if a in group.updated and a.primary is not None else a for a in group.atoms)
            result, bias = self._cover(line), np.zeros(0)
        else:
            result, bias = self._convolutions(group)
        for layer in itertools.zip_longest(*(self._skips(group, atom) for atom in group.atoms)):
            result = self._add_skips(result, group, layer)
        if bias.any():
            result = self._add_bias(result, bias)
        if group.op is not None:
            template = group.op.template
            inputs = [result, *template.inputs[1:]]
            result = self._emit(template.op_type, inputs, template.attributes, self._label(group))
        return self._describe(result, group, group.atoms[0].extents)

    def _skips(self, group: Group, atom: Atom) -> tuple[tuple[Atom, ...], ...]:
        return atom.skips if group.base is None or atom in group.updated else ()

    def _convolutions(self, group: Group) -> tuple[ir.Value, Array]:
        """The sum of a group's convolutions, and the bias where no convolution could take it."""
        first = group.atoms[0]
        bias = np.concatenate([atom.bias for atom in group.atoms])
        classes: dict[object, list[Read]] = defaultdict(list)
        for read in first.main:
            key = geometry(read) if read.kernel.groups == 1 else read
            classes[key].append(read)
        result: ir.Value | None = None
        for reads in classes.values():
            if reads[0].kernel.groups == 1:
                part, bias = self._dense(group, reads, bias)
            else:
                part, bias = self._grouped(group, reads[0], bias)
            result = part if result is None else self._emit("Add", [result, part], {}, self._label(group, "sum"))
        assert result is not None
        return result, bias

    def _dense(self, group: Group, reads: Sequence[Read], bias: Array) -> tuple[ir.Value, Array]:
        geometry_key = geometry(reads[0])
        order = self._reading_order([read.atoms[0] for read in reads])
        blocks = []
        for atom in group.atoms:
            by_atom = {read.atoms[0]: read.kernel for read in atom.main if geometry(read) == geometry_key}
            blocks.append([by_atom[source] for source in order])
        return self._conv(self._cover(order), kernels.block_matrix(blocks), bias, group), np.zeros(0)

    def _grouped(self, group: Group, read: Read, bias: Array) -> tuple[ir.Value, Array]:
        kernel, source = read.kernel, self._cover(read.atoms)
        if kernel.is_identity:
            return source, bias
        subsampled = all(o == 0 and g == 0 for o, g in zip(kernel.offsets, kernel.growth, strict=True))
        if kernel.is_selection and subsampled:
            return self._subsample(source, kernel.strides), bias
        if kernel.is_diagonal and kernel.is_pointwise:
            return self._normalization(source, kernel.weight.reshape(-1), bias, group), np.zeros(0)
        return self._conv(source, kernel, bias, group), np.zeros(0)

    def _reading_order(self, sources: list[Atom]) -> tuple[Atom, ...]:
        """The atoms in the order of the tensor that holds exactly them, if there is one."""
        wanted = set(sources)
        for group in self._containing[sources[0]]:
            if set(group.atoms) == wanted:
                return tuple(group.atoms)
        return tuple(sorted(sources, key=lambda a: (self._home[a].atoms[0].index, self._home[a].atoms.index(a))))

    def _add_skips(self, result: ir.Value, group: Group, layer: Sequence[tuple[Atom, ...] | None]) -> ir.Value:
        """Add one skip of every member; a member without one (None) adds nothing to its channels."""
        label = self._label(group, "sum")
        if all(span is not None for span in layer):
            whole = tuple(atom for span in layer if span is not None for atom in span)
            return self._emit("Add", [result, self._cover(whole)], {}, label)
        masked = self._masked(group, layer)
        if masked is not None:
            return self._emit("Add", [result, masked], {}, label)
        parts: list[tuple[Atom, ...] | Segment] = [
            Segment(atom.rows, (), np.zeros(atom.rows)) if span is None else span
            for atom, span in zip(group.atoms, layer, strict=True)
        ]
        return self._emit("Add", [result, self._pad_runs(parts)], {}, label)

    def _masked(self, group: Group, layer: Sequence[tuple[Atom, ...] | None]) -> ir.Value | None:
        """A tensor that holds what is added at the very channels it is added to, times zeros and ones."""
        present = [span for span in layer if span is not None]
        for other in self._containing[present[0][0]]:
            places = dict(zip(other.atoms, itertools.accumulate([0, *(a.rows for a in other.atoms)]), strict=False))
            starts = itertools.accumulate([0, *(atom.rows for atom in group.atoms)])
            aligned = all(
                span is None or (span[0] in places and places[span[0]] == start and len(span) == 1)
                for span, start in zip(layer, starts, strict=False)
            )
            if aligned and rows_of(other.atoms) == rows_of(group.atoms) and other in self._tensor:
                mask = np.concatenate(
                    [np.full(a.rows, 0.0 if s is None else 1.0) for a, s in zip(group.atoms, layer, strict=True)]
                )
                factor = self._channel_constant(mask, other.atoms[0], self._label(group, "mask"))
                return self._emit("Mul", [self._tensor[other], factor], {}, self._label(group, "masked"))
        return None

    # --- tensors in the shape a reader wants -------------------------------------------------------------------------

    def _cover(self, atoms: tuple[Atom, ...]) -> ir.Value:
        """The tensor whose channels are these atoms, in this order."""
        for group in self._containing[atoms[0]]:
            if tuple(group.atoms) == atoms and group in self._tensor:
                return self._tensor[group]
        if atoms not in self._assembled:
            pieces = [self._slice(group, start, stop) for group, start, stop in self._runs(atoms)]
            single = len(pieces) == 1
            self._assembled[atoms] = pieces[0] if single else self._emit("Concat", pieces, {"axis": 1}, "joined")
        return self._assembled[atoms]

    def _runs(self, atoms: tuple[Atom, ...]) -> list[tuple[Group, int, int]]:
        """Consecutive atoms of one tensor, as ranges of its members."""
        runs: list[tuple[Group, int, int]] = []
        for atom in atoms:
            group = self._home[atom]
            place = group.atoms.index(atom)
            if runs and runs[-1][0] is group and runs[-1][2] == place:
                runs[-1] = (group, runs[-1][1], place + 1)
            else:
                runs.append((group, place, place + 1))
        return runs

    def _slice(self, group: Group, first: int, last: int) -> ir.Value:
        if (first, last) == (0, len(group.atoms)):
            return self._tensor[group]
        start = rows_of(group.atoms[:first])
        stop = start + rows_of(group.atoms[first:last])
        bounds = [self._integers(values) for values in ([start], [stop], [1])]
        key = ("slice", group, start, stop)
        if key not in self._assembled:
            name = f"{self._tensor[group].name}_{start}_{stop}"
            self._assembled[key] = self._emit("Slice", [self._tensor[group], *bounds], {}, name)
        return self._assembled[key]

    def _subsample(self, value: ir.Value, steps: Sequence[int]) -> ir.Value:
        axes = [axis + 2 for axis, step in enumerate(steps) if step > 1]
        lists = [0] * len(axes), [_MAX] * len(axes), axes, [step for step in steps if step > 1]
        return self._emit("Slice", [value, *(self._integers(list(x)) for x in lists)], {}, f"{value.name}_strided")

    def _pad(self, value: ir.Value, before: int, after: int) -> ir.Value:
        if not before and not after:
            return value
        axes = len(value.shape) - 2 if value.shape is not None else 2
        pads = [0, before, *[0] * axes, 0, after, *[0] * axes]
        return self._emit("Pad", [value, self._integers(pads)], {"mode": "constant"}, f"{value.name}_padded")

    # --- single nodes -----------------------------------------------------------------------------------------------

    def _conv(self, source: ir.Value, kernel: Kernel, bias: Array, group: Group) -> ir.Value:
        before, after = kernel.pads
        attributes = {
            "dilations": list(kernel.dilations),
            "group": kernel.groups,
            "kernel_shape": list(kernel.taps),
            "pads": [*before, *after],
            "strides": list(kernel.strides),
        }
        label = self._label(group, "conv")
        inputs = [source, self._constant(kernel.weight, f"{label}.weight")]
        if bias.any():
            inputs.append(self._constant(bias, f"{label}.bias"))
        return self._describe(self._emit("Conv", inputs, attributes, label), group, group.atoms[0].inner)

    def _normalization(self, source: ir.Value, scale: Array, bias: Array, group: Group) -> ir.Value:
        """A scale and an offset a channel, as the one node that says so."""
        label = self._label(group, "scale")
        zeros = np.zeros(len(scale))
        offset = bias if bias.size else zeros
        parameters = {"scale": scale, "offset": offset, "mean": zeros, "var": np.ones(len(scale))}
        inputs = [source, *(self._constant(array, f"{label}.{key}") for key, array in parameters.items())]
        return self._emit("BatchNormalization", inputs, {"epsilon": 0.0}, label)

    def _add_bias(self, value: ir.Value, bias: Array) -> ir.Value:
        axes = len(value.shape) - 2 if value.shape is not None else 2
        constant = self._constant(bias.reshape((1, -1) + (1,) * axes), f"{value.name}.bias")
        return self._emit("Add", [value, constant], {}, f"{value.name}_biased")

    def _channel_constant(self, vector: Array, like: Atom, name: str) -> ir.Value:
        return self._constant(vector.reshape((1, -1) + (1,) * len(like.extents)), name)

    def _emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, ir.Attr | int | float | str | list[int]],
        name: str,
    ) -> ir.Value:
        listed = [value if isinstance(value, ir.Attr) else _attribute(key, value) for key, value in attributes.items()]
        unique = self._unique(name)
        output = ir.Value(name=unique, type=ir.TensorType(self._dtype), shape=_shape_like(inputs[0]))
        self.nodes.append(ir.Node("", op_type, inputs, listed, outputs=[output], name=f"{unique}/{op_type}"))
        return output

    def _constant(self, array: Array, name: str) -> ir.Value:
        tensor = ir.tensor(array.astype(self._dtype.numpy()), name=self._unique(name))
        return self._initializer(tensor)

    def _integers(self, values: Sequence[int]) -> ir.Value:
        key = ("ints", tuple(values))
        if key not in self._assembled:
            name = self._unique("const_" + "_".join("max" if v == _MAX else str(v) for v in values))
            self._assembled[key] = self._initializer(ir.tensor(np.array(values, dtype=np.int64), name=name))
        return self._assembled[key]

    def _initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.initializers.append(value)
        return value

    def _label(self, group: Group, suffix: str = "") -> str:
        origins = dict.fromkeys(str(atom.origin.name) for atom in group.atoms)
        name = "+".join(itertools.islice(origins, 2)) + ("+..." if len(origins) > 2 else "")
        return f"{name}.{suffix}" if suffix else name

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def _describe(self, value: ir.Value, group: Group, extents: Extents) -> ir.Value:
        """Record whose channels these are, and the shape as far as it is known."""
        node = value.producer()
        if node is not None and node in self.nodes[-1:]:
            members = [[a.origin.name, a.origin_start, a.origin_start + a.rows] for a in group.atoms]
            node.metadata_props[MEMBERS_KEY] = json.dumps(members)
            first = group.atoms[0]
            batch = first.origin.shape[0] if first.origin.shape is not None else None
            sizes = [extent if isinstance(extent, int) else None for extent in extents]
            value.shape = ir.Shape([batch, rows_of(group.atoms), *sizes])
        return value


def _attribute(name: str, value: int | float | str | list[int]) -> ir.Attr:
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    return ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrInt64s(name, value)


def _shape_like(value: ir.Value | None) -> ir.Shape | None:
    """Only the rank is known before shape inference runs on the finished graph."""
    return None if value is None or value.shape is None else ir.Shape([None] * len(value.shape))


def _float_type(nf: NormalForm) -> ir.DataType:
    types = {source.origin.dtype for source in nf.sources if source.origin.dtype is not None}
    return next(iter(types)) if len(types) == 1 else ir.DataType.FLOAT


def read_members(node: ir.Node) -> list[tuple[str, int, int]]:
    """What `MEMBERS_KEY` of a folded node says: (tensor of the unfolded graph, first channel, last channel + 1)."""
    text = node.metadata_props.get(MEMBERS_KEY)
    return [] if text is None else [(str(name), int(a), int(b)) for name, a, b in json.loads(text)]
