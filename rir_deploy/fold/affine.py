"""From graph to affine normal form, node by node and in order.

Each op has a small rule (`rules`) that says what its output is in terms of its inputs' forms; there is no pattern of
several nodes anywhere. A node without a rule, or one that a rule refuses, stays in the graph, and its output is a
source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.constants import Constants
from rir_deploy.fold.forms import Affine, ChannelwiseOp, Extent, Extents, Segment, Source, whole
from rir_deploy.fold.nested import values_read
from rir_deploy.fold.ranges import misfit

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


class RefusalError(Exception):
    """A node that cannot be folded, with the reason a user is told."""


# The form of a node's output; None where the op is none of the rule's business; RefusalError with a reason to tell.
Rule = Callable[["NormalForm", ir.Node], "Affine | None"]


@dataclass(frozen=True)
class Refused:
    node: str
    reason: str


class NormalForm:
    """The normal forms of all feature maps of a graph, the sources they rest on, and what was refused."""

    def __init__(self, graph: ir.Graph, rules: Mapping[str, Rule], untouched: frozenset[str] = frozenset()) -> None:
        """``untouched`` names weights whose readers stay as they are."""
        self._rules = rules
        self._untouched = untouched
        self.opset = graph.opset_imports.get("", 0)
        self.constants = Constants(self.opset, from_shapes=True)
        self.forms: dict[ir.Value, Affine] = {}
        # What rules note about values that have no normal form (yet), for the rules of their readers.
        self.views: dict[ir.Value, object] = {}
        self.sources: list[Source] = []
        self.kept: list[ir.Node] = []
        self.refused: list[Refused] = []
        self._materialized: dict[Segment, Source] = {}
        self._unread: dict[ir.Value, int] = {}
        for value in graph.inputs:
            self._keep_value(value)
        for node in graph:
            self._visit(node)
        self.required = list(graph.outputs)
        for value in self.required:
            self.materialize_value(value)

    def _visit(self, node: ir.Node) -> None:
        rule = self._rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        form = None
        if rule is not None and not self._is_constant(node):
            try:
                self._check_weights(node)
                form = self._apply(rule, node)
            except RefusalError as refusal:
                self.refused.append(Refused(node.name or node.outputs[0].name or node.op_type, str(refusal)))
        if form is not None:
            self.forms[node.outputs[0]] = form
            self._release(node)
            return
        for value in values_read(node):  # what graphs in it capture too: it has to be there before the node is
            self.materialize_value(value)
        self.kept.append(node)
        for value in node.outputs:
            self._keep_value(value)

    def _apply(self, rule: Rule, node: ir.Node) -> Affine | None:
        try:  # what is too large for float64 is found below, what is too small would be zero there
            with np.errstate(all="ignore", under="raise"):
                form = rule(self, node)
        except FloatingPointError as error:
            raise RefusalError("folded, its weights would be too small for any type") from error
        if form is None:
            return None
        check_reads(form)
        if any(isinstance(extent, int) and extent < 1 for extent in form.extents):
            raise RefusalError("its result has no elements")
        output = node.outputs[0]
        if output.dtype is None:  # where types could not be inferred: that of the maps it is made of
            output.type = next(v.type for v in node.inputs if v is not None and v in self.forms)
        reason = None if output.dtype is None else misfit(form, output.dtype)
        if reason is not None:
            raise RefusalError(reason)
        return form

    def _release(self, node: ir.Node) -> None:
        """Forget forms that no later node reads: with their kernels they are most of the memory that folding takes."""
        for value in node.inputs:
            if value is not None and value in self.forms:
                self._unread[value] = self._unread.get(value, self.uses(value)) - 1
                if not self._unread[value]:
                    del self.forms[value]

    def _check_weights(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is not None and value.name in self._untouched and value.is_initializer():
                others = sorted({str(other.name) for other, _ in value.uses() if other is not node})
                raise RefusalError(
                    f"it shares the weight '{value.name}' with {', '.join(others[:2])}: "
                    "folded, it would be stored more than once"
                )

    def _is_constant(self, node: ir.Node) -> bool:
        return not node.inputs or self.constants.get(node.outputs[0]) is not None

    def _keep_value(self, value: ir.Value) -> None:
        """Make a tensor of the graph a source, if it is a feature map of known channel count."""
        shape = value.shape
        if shape is None or len(shape) < 3 or value.dtype not in _FLOATS or not isinstance(shape[1], int):
            return
        if any(isinstance(size, int) and size < 1 for size in shape):
            return  # a tensor without elements: there is nothing to fold, and no channel to tell by
        extents = tuple(extent_of(value, axis) for axis in range(2, len(shape)))
        source = self._source(int(shape[1]), extents, extent_of(value, 0), value)
        self.forms[value] = whole(source)

    def _source(self, channels: int, extents: Extents, batch: Extent, origin: ir.Value) -> Source:
        source = Source(len(self.sources), channels, extents, batch, origin)
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
        if any(segment.bias.any() for segment in form.segments) and any(_pads(node) for node, _ in value.uses()):
            # That reader has to see the biased tensor; then let all see it, so that they may be added up.
            self.materialize_value(value)
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
            source = self._source(segment.rows, extents, _batch(segment, origin), origin)
            source.operand, source.origin_start = segment, start
            self._materialized[segment] = source
        return whole(source).segments[0]

    def channelwise(self, op: ChannelwiseOp, form: Affine, extents: Extents, output: ir.Value) -> Affine:
        """The result of a channelwise op: one source a segment."""
        segments, at = [], 0
        for segment in form.segments:
            source = self._source(segment.rows, extents, _batch(segment, output), output)
            source.op, source.operand, source.origin_start = op, segment, at
            source.operand_extents = form.extents
            segments.append(whole(source).segments[0])
            at += segment.rows
        return Affine(tuple(segments), extents)

    def uses(self, value: ir.Value) -> int:
        return len(value.uses()) + value.is_graph_output()


def check_reads(form: Affine) -> Affine:
    """The same map; refused where it is constant (channels of zeros, sliced off again), since no node could make it."""
    if not any(segment.terms for segment in form.segments):
        raise RefusalError("its result depends on no input")
    return form


def _pads(node: ir.Node) -> bool:
    pads = node.attributes.get_ints("pads", ()) if node.op_type == "Conv" else ()
    return any(pad > 0 for pad in pads) or node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")


def _batch(segment: Segment, origin: ir.Value) -> Extent:
    """The batch of a segment of a tensor: that of what it reads, or of the tensor, where it reads nothing."""
    return segment.terms[0].source.batch if segment.terms else extent_of(origin, 0)


def extent_of(value: ir.Value, axis: int) -> Extent:
    size = None if value.shape is None else value.shape[axis]
    if isinstance(size, int):
        return size
    name = getattr(size, "value", None)
    return (("dim", name) if name else ("axis", value.name, axis), 1, 0)
