"""From graph to affine normal form: one small rule an op, and no pattern of several nodes anywhere.

A rule returns the form of the node's output, or raises `Refusal` with a reason worth telling, or returns None where
the op is simply none of its business. In the last two cases the node stays in the graph and its output is a source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.fold import kernels
from rir_deploy.fold.constants import Constants
from rir_deploy.fold.forms import (
    Affine,
    ChannelwiseOp,
    Extent,
    Extents,
    Segment,
    Source,
    Term,
    add_forms,
    extents_after,
    merge_terms,
    scale_form,
    take_channels,
    whole,
)
from rir_deploy.fold.kernels import Array, Axes, Kernel

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


class Refusal(Exception):
    """A node that cannot be folded, with the reason a user is told."""


@dataclass(frozen=True)
class Refused:
    node: str
    reason: str


class NormalForm:
    """The normal forms of all feature maps of a graph, the sources they rest on, and what was refused."""

    def __init__(self, graph: ir.Graph) -> None:
        self.opset = graph.opset_imports.get("", 0)
        self.constants = Constants(self.opset)
        self.forms: dict[ir.Value, Affine] = {}
        self.sources: list[Source] = []
        self.kept: list[ir.Node] = []
        self.refused: list[Refused] = []
        self._materialized: dict[Segment, Source] = {}
        self._captured = _captured_values(graph)
        for value in graph.inputs:
            self._keep_value(value)
        for node in graph:
            self._visit(node)
        self.required = [*graph.outputs, *self._captured]
        for value in self.required:
            self.materialize_value(value)

    def _visit(self, node: ir.Node) -> None:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        form = None
        if rule is not None and not self._is_constant(node):
            try:
                form = rule(self, node)
            except Refusal as refusal:
                self.refused.append(Refused(node.name or node.outputs[0].name or node.op_type, str(refusal)))
        if form is not None:
            self.forms[node.outputs[0]] = form
            return
        for value in node.inputs:
            self.materialize_value(value)
        self.kept.append(node)
        for value in node.outputs:
            self._keep_value(value)

    def _is_constant(self, node: ir.Node) -> bool:
        return not node.inputs or self.constants.get(node.outputs[0]) is not None

    def _keep_value(self, value: ir.Value) -> None:
        """Make a tensor of the graph a source, if it is a feature map of known channel count."""
        shape = value.shape
        if shape is None or len(shape) < 3 or value.dtype not in _FLOATS or not isinstance(shape[1], int):
            return
        extents = tuple(_extent(value, axis) for axis in range(2, len(shape)))
        source = self._source(int(shape[1]), extents, value)
        self.forms[value] = whole(source)

    def _source(self, channels: int, extents: Extents, origin: ir.Value) -> Source:
        source = Source(len(self.sources), channels, extents, origin)
        self.sources.append(source)
        return source

    def form(self, value: ir.Value | None) -> Affine | None:
        return None if value is None else self.forms.get(value)

    def operand(self, value: ir.Value | None) -> Affine | None:
        """The form of a value as a rule may use it: work that several readers share must stay done once.

        Readers that all take channel slices share nothing, so they alone may look through.
        """
        form = self.form(value)
        if form is None or value is None or self.uses(value) < 2:
            return form
        sliced = not value.is_graph_output() and all(node.op_type == "Slice" for node, _ in value.uses())
        if not sliced and any(segment.is_work for segment in form.segments):
            self.materialize_value(value)
        return self.form(value)

    def materialize_value(self, value: ir.Value | None) -> None:
        """Replace every segment of a value that is not a plain slice of a source by a source of its own."""
        form = self.form(value)
        if form is None or value is None:
            return
        segments, at = [], 0
        for segment in form.segments:
            plain = segment.is_identity or not segment.terms
            segments.append(segment if plain else self.materialize(segment, form.extents, value, at))
            at += segment.rows
        self.forms[value] = Affine(tuple(segments), form.extents)

    def materialize(self, segment: Segment, extents: Extents, origin: ir.Value, start: int) -> Segment:
        """A segment as a source: it will exist as a tensor, computed once, whoever reads it."""
        source = self._materialized.get(segment)
        if source is None:
            source = self._source(segment.rows, extents, origin)
            source.operand, source.origin_start = segment, start
            self._materialized[segment] = source
        return whole(source).segments[0]

    def channelwise(self, op: ChannelwiseOp, form: Affine, extents: Extents, output: ir.Value) -> Affine:
        """The result of a channelwise op: one source a segment."""
        segments, at = [], 0
        for segment in form.segments:
            source = self._source(segment.rows, extents, output)
            source.op, source.operand, source.origin_start = op, segment, at
            source.operand_extents = form.extents
            segments.append(whole(source).segments[0])
            at += segment.rows
        return Affine(tuple(segments), extents)

    def uses(self, value: ir.Value) -> int:
        return len(value.uses()) + value.is_graph_output()


def _captured_values(graph: ir.Graph) -> list[ir.Value]:
    """Values of the graph that a subgraph (If, Loop, Scan) reads by name."""
    own = set(graph.inputs) | {value for node in graph for value in node.outputs}
    captured = [value for sub in graph.subgraphs() if sub is not graph for node in sub for value in node.inputs]
    captured += [value for sub in graph.subgraphs() if sub is not graph for value in sub.outputs]
    return sorted({v for v in captured if v in own and v is not None}, key=lambda v: str(v.name))


def _extent(value: ir.Value, axis: int) -> Extent:
    assert value.shape is not None
    size = value.shape[axis]
    if isinstance(size, int):
        return size
    name = getattr(size, "value", None)
    return (("dim", name) if name else ("axis", value.name, axis), 1, 0)


def _vector(array: NDArray[np.generic] | None, form: Affine) -> Array | None:
    """A constant that is one number a channel (or one for all), as float64 [channels]; else None."""
    if array is None:
        return None
    rank = form.axes + 2
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[0] != 1 or any(size != 1 for size in shape[2:]) or shape[1] not in (1, form.channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (form.channels,))


# --- rules -----------------------------------------------------------------------------------------------------------

Rule = Callable[[NormalForm, ir.Node], "Affine | None"]


def _conv(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None:
        raise Refusal("the shape of its input is not known: no channel count to fold over")
    weight = nf.constants.get(node.inputs[1])
    if weight is None:
        raise Refusal(
            f"its weight '{_name(node.inputs[1])}' is not a constant (a graph input, or computed at run time)"
        )
    bias = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
    if bias is None:
        raise Refusal(f"its bias '{_name(node.inputs[2])}' is not a constant")
    if weight.ndim != form.axes + 2:
        raise Refusal(f"its weight has {weight.ndim} dimensions where its input has {form.axes + 2}")
    kernel = _conv_kernel(node, weight.astype(np.float64), form.extents)
    if kernel.cols != form.channels or kernel.rows % kernel.groups:
        raise Refusal(f"its weight reads {kernel.cols} channels where its input has {form.channels}")
    result = _convolve(nf, node, kernel, form)
    offset = np.broadcast_to(np.asarray(bias, dtype=np.float64), (kernel.rows,))
    return scale_form(result, np.ones(kernel.rows), offset)


def _conv_kernel(node: ir.Node, weight: Array, extents: Extents) -> Kernel:
    axes = weight.ndim - 2
    strides = _ints(node, "strides", (1,) * axes)
    dilations = _ints(node, "dilations", (1,) * axes)
    auto_pad = _string(node, "auto_pad", "NOTSET")
    pads = _ints(node, "pads", (0,) * (2 * axes))
    if auto_pad == "VALID":
        pads = (0,) * (2 * axes)
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(auto_pad, weight.shape[2:], strides, dilations, extents)
    return kernels.convolution(weight, strides, pads, dilations, _int(node, "group", 1))


def _same_pads(auto_pad: str, taps: Axes, strides: Axes, dilations: Axes, extents: Extents) -> Axes:
    before, after = [], []
    for tap, stride, dilation, extent in zip(taps, strides, dilations, extents, strict=True):
        if stride == 1:
            total = dilation * (tap - 1)
        elif isinstance(extent, int):
            total = max((-(-extent // stride) - 1) * stride + dilation * (tap - 1) + 1 - extent, 0)
        else:
            raise Refusal(f"auto_pad {auto_pad} with a stride pads by the input's size, which is dynamic")
        small, large = total // 2, total - total // 2
        before.append(small if auto_pad == "SAME_UPPER" else large)
        after.append(large if auto_pad == "SAME_UPPER" else small)
    return (*before, *after)


def _convolve(nf: NormalForm, node: ir.Node, kernel: Kernel, form: Affine) -> Affine:
    """kernel * form, one part for every segment of the input."""
    origin = node.inputs[0]
    assert origin is not None
    shared = nf.uses(origin) > 1
    terms: list[Term] = []
    bias = np.zeros(kernel.rows)
    grouped: list[Segment] = []
    at = 0
    for segment in form.segments:
        taken = kernels.take_columns(kernel, at, at + segment.rows)
        if taken is None:
            raise Refusal("a group of its channels straddles two concatenated tensors")
        part_terms, part_bias = _through(nf, taken[0], segment, shared, (form.extents, origin, at))
        if kernel.groups == 1:
            terms.extend(part_terms)
            bias = bias + part_bias
        else:
            grouped.append(Segment(taken[0].rows, part_terms, part_bias))
        at += segment.rows
    segments = tuple(grouped) if kernel.groups > 1 else (Segment(kernel.rows, merge_terms(terms), bias),)
    return Affine(segments, extents_after(form.extents, kernel))


def _through(
    nf: NormalForm, kernel: Kernel, segment: Segment, shared: bool, place: tuple[Extents, ir.Value, int]
) -> tuple[tuple[Term, ...], Array]:
    """One kernel applied to one segment: composed where that is exact and adds no work, else to its tensor."""
    exact_bias = not segment.bias.any() or not kernel.is_padded
    if exact_bias:
        composed = _composed(kernel, segment, shared)
        if composed is not None:
            return composed, kernels.apply_to_bias(kernel, segment.bias)
    if not segment.terms:
        raise Refusal("it pads a constant that is not zero, which is no convolution of anything")
    source = nf.materialize(segment, *place)
    (term,) = source.terms
    return (Term(term.source, 0, segment.rows, kernel),), np.zeros(kernel.rows)


def _composed(kernel: Kernel, segment: Segment, shared: bool) -> tuple[Term, ...] | None:
    terms = []
    for term in segment.terms:
        inner = kernels.compose(kernel, term.kernel)
        if inner is None:
            return None
        terms.append(Term(term.source, term.start, term.stop, inner))
    area = int(np.prod(kernel.strides))
    # What the inner convolutions cost goes away only if nobody else needs their result.
    saved = 0 if shared else sum(0 if t.kernel.is_diagonal else t.kernel.macs for t in segment.terms)
    spent = sum(term.kernel.macs for term in terms)
    if spent > kernel.macs + saved * area or spent > kernel.macs + saved:
        return None
    return tuple(terms)


def _batch_normalization(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None:
        return None
    if _int(node, "training_mode", 0) or len([v for v in node.outputs if v.uses() or v.is_graph_output()]) > 1:
        raise Refusal("it is in training mode: its statistics are computed from the batch; export in eval mode")
    parameters = [nf.constants.get(value) for value in node.inputs[1:5]]
    if any(p is None for p in parameters):
        raise Refusal("its parameters are not constants")
    gamma, beta, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
    if gamma.shape != (form.channels,):
        raise Refusal(f"it normalises {gamma.size} channels where its input has {form.channels}")
    # The attribute is stored in 32 bits; widening it here is what a runtime does too.
    scale = gamma / np.sqrt(variance + _float(node, "epsilon", 1e-5))
    return scale_form(form, scale, beta - mean * scale)


def _sum(nf: NormalForm, node: ir.Node) -> Affine | None:
    result: Affine | None = None
    offset: float | Array = 0.0
    constants: list[NDArray[np.generic]] = []
    for position, value in enumerate(node.inputs):
        form = nf.operand(value)
        if form is None:
            array = nf.constants.get(value)
            if array is None:
                return None
            constants.append(-array if node.op_type == "Sub" and position == 1 else array)
            continue
        if node.op_type == "Sub" and position == 1:
            form = scale_form(form, -np.ones(form.channels), np.zeros(form.channels))
        if result is None:
            result = form
        elif _same_shape(nf, node, result, form):
            result = add_forms(result, form)
        else:
            return None
    for array in constants:
        vector = None if result is None else _vector(array, result)
        if vector is None:
            return None
        offset = offset + vector
    if result is None:
        return None
    return scale_form(result, np.ones(result.channels), np.broadcast_to(offset, (result.channels,)))


def _same_shape(nf: NormalForm, node: ir.Node, a: Affine, b: Affine) -> bool:
    """Whether an elementwise op of two maps broadcasts nothing."""
    batches = {value.shape[0] for value in node.inputs if value is not None and value.shape is not None}
    if len({size for size in batches if isinstance(size, int)}) > 1:
        return False
    return a.channels == b.channels and a.extents == b.extents


def _product(nf: NormalForm, node: ir.Node) -> Affine | None:
    left, right = node.inputs[:2]
    form, factor = nf.operand(left), nf.constants.get(right)
    if form is None and node.op_type == "Mul":
        form, factor = nf.operand(right), nf.constants.get(left)
    vector = None if form is None else _vector(factor, form)
    if form is None or vector is None:
        return None
    if node.op_type == "Div":
        if not vector.all():
            raise Refusal("it divides by zero")
        vector = 1.0 / vector
    return scale_form(form, vector, np.zeros(form.channels))


def _negation(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    return None if form is None else scale_form(form, -np.ones(form.channels), np.zeros(form.channels))


def _identity(nf: NormalForm, node: ir.Node) -> Affine | None:
    return nf.operand(node.inputs[0])


def _dropout(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    mode = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if form is not None and (mode is None or bool(np.any(mode))):
        raise Refusal("it is in training mode; export in eval mode")
    mask_used = len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return None if mask_used else form


def _concat(nf: NormalForm, node: ir.Node) -> Affine | None:
    forms = [nf.operand(value) for value in node.inputs]
    known = [form for form in forms if form is not None]
    if len(known) < len(forms) or not known:
        return None
    if _axis(node, known[0]) != 1 or any(form.extents != known[0].extents for form in known):
        return None
    return Affine(tuple(segment for form in known for segment in form.segments), known[0].extents)


def _split(nf: NormalForm, node: ir.Node) -> Affine | None:
    """Split has several outputs: every one but the first is set here."""
    form = nf.operand(node.inputs[0])
    if form is None or _axis(node, form) != 1:
        return None
    sizes = _split_sizes(nf, node, form.channels)
    if sizes is None or sum(sizes) != form.channels or len(sizes) != len(node.outputs):
        raise Refusal("its sizes are not constants")
    borders = [0, *np.cumsum(sizes).tolist()]
    parts = [take_channels(form, *r) for r in zip(borders, borders[1:], strict=False)]
    for output, part in list(zip(node.outputs, parts, strict=True))[1:]:
        nf.forms[output] = part
    return parts[0]


def _split_sizes(nf: NormalForm, node: ir.Node, channels: int) -> list[int] | None:
    if (attribute := _ints(node, "split", ())) != ():
        return list(attribute)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = nf.constants.get(node.inputs[1])
        return None if sizes is None else [int(size) for size in sizes.reshape(-1)]
    count = len(node.outputs)
    chunk = -(-channels // count)
    return [min(chunk, channels - chunk * i) for i in range(count)]


def _slice(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None:
        return None
    arrays = [nf.constants.get(value) for value in node.inputs[1:]]
    if len(arrays) < 2 or any(a is None and v is not None for a, v in zip(arrays, node.inputs[1:], strict=True)):
        return None
    lists = [[int(x) for x in np.asarray(a).reshape(-1)] if a is not None else None for a in arrays]
    starts, ends = lists[0] or [], lists[1] or []
    axes = lists[2] if len(lists) > 2 and lists[2] is not None else list(range(len(starts)))
    steps = lists[3] if len(lists) > 3 and lists[3] is not None else [1] * len(starts)
    spatial = [1] * form.axes
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis % (form.axes + 2)
        if axis == 1 and step == 1:
            low, high, _ = slice(start, end).indices(form.channels)
            if low >= high:
                return None
            form = take_channels(form, low, high)
        elif axis >= 2 and start == 0 and step >= 1 and _reaches_end(end, form.extents[axis - 2]):
            spatial[axis - 2] = step
        else:
            return None
    if all(step == 1 for step in spatial):
        return form
    return _map_segments(nf, node, form, lambda channels: kernels.subsample(channels, tuple(spatial)))


def _reaches_end(end: int, extent: Extent) -> bool:
    return end >= extent if isinstance(extent, int) else end >= 2**31 - 1


def _pad(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    amounts = nf.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if form is None or amounts is None or _string(node, "mode", "constant") != "constant":
        return None
    fill = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if fill is None or np.any(np.asarray(fill, dtype=np.float64) != 0.0):
        return None
    rank = form.axes + 2
    before, after = [0] * rank, [0] * rank
    listed = (
        nf.constants.get(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else np.arange(rank)
    )
    if listed is None:
        return None
    half = len(listed)
    for position, axis in enumerate(int(a) % rank for a in listed):
        before[axis], after[axis] = int(amounts[position]), int(amounts[half + position])
    if before[0] or after[0] or min(before[1], after[1]) < 0:
        return None
    zeros = [Segment(n, (), np.zeros(n)) for n in (before[1], after[1])]
    low, high = ([zero] if zero.rows else [] for zero in zeros)
    form = Affine((*low, *form.segments, *high), form.extents)
    if not any(before[2:]) and not any(after[2:]):
        return form
    return _map_segments(nf, node, form, lambda channels: kernels.shift(channels, tuple(before[2:]), tuple(after[2:])))


def _map_segments(nf: NormalForm, node: ir.Node, form: Affine, make: Callable[[int], Kernel]) -> Affine | None:
    """A diagonal kernel on every segment, where all of them stay convolutions of their sources."""
    segments = []
    for segment in form.segments:
        kernel = make(segment.rows)
        if segment.bias.any() and kernel.is_padded:
            return None
        terms = _composed(kernel, segment, shared=True)
        if terms is None:
            return None
        segments.append(Segment(segment.rows, terms, segment.bias))
    return Affine(tuple(segments), extents_after(form.extents, make(1)))


def _channelwise(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    constants = [nf.constants.get(value) for value in node.inputs[1:]]
    if form is None or any(not segment.terms for segment in form.segments):
        return None
    if any(a is None and v is not None for a, v in zip(constants, node.inputs[1:], strict=True)):
        return None
    if any(a is not None and a.size > 1 for a in constants) or len(node.outputs) != 1:
        return None
    # A constant that is not there (Clip without a minimum) differs from every constant that is.
    raw = tuple(b"" if a is None else a.dtype.str.encode() + a.tobytes() for a in constants)
    attributes = tuple(sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()))
    op = ChannelwiseOp(node.op_type, attributes, raw, node)
    return nf.channelwise(op, form, _channelwise_extents(node, op, form), node.outputs[0])


def _channelwise_extents(node: ir.Node, op: ChannelwiseOp, form: Affine) -> Extents:
    if node.op_type in POINTWISE:
        return form.extents
    if node.op_type.startswith("Global"):
        return (1,) * form.axes
    output = node.outputs[0]
    sizes = [_extent(output, axis) for axis in range(2, form.axes + 2)] if output.shape is not None else []
    if sizes and all(isinstance(size, int) for size in sizes):
        return tuple(sizes)
    # Symbolic: equal ops on equal lengths give equal lengths.
    return tuple(((op.op_type, op.attributes, form.extents, axis), 1, 0) for axis in range(form.axes))


def _name(value: ir.Value | None) -> str:
    return "" if value is None or value.name is None else value.name


def _axis(node: ir.Node, form: Affine) -> int:
    return _int(node, "axis", 0) % (form.axes + 2)


def _int(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes.get_int(name, default))


def _float(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def _string(node: ir.Node, name: str, default: str) -> str:
    return str(node.attributes.get_string(name, default))


def _ints(node: ir.Node, name: str, default: Axes) -> Axes:
    return tuple(int(i) for i in node.attributes.get_ints(name, default))


POINTWISE = frozenset(
    ["Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish", "Gelu", "Erf", "Abs", "Exp", "ThresholdedRelu", "Swish"]
)
POOLING = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})

RULES: dict[str, Rule] = {
    "Conv": _conv,
    "BatchNormalization": _batch_normalization,
    "Add": _sum,
    "Sub": _sum,
    "Sum": _sum,
    "Mul": _product,
    "Div": _product,
    "Neg": _negation,
    "Identity": _identity,
    "Dropout": _dropout,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    **dict.fromkeys(sorted(POINTWISE | POOLING), _channelwise),
}
