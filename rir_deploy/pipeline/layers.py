"""verify --layers: the feature maps of two sides held against each other, whatever their graphs look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import UsageError
from rir_deploy.graph.prepare import prepare
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.checkpoints import trace
from rir_deploy.pipeline.feature_maps import FeatureMap, find_feature_maps, network_input
from rir_deploy.pipeline.isolate import GraphSession, input_name, is_cut, isolate, reading_images
from rir_deploy.pipeline.matching import Arrays, Match, match
from rir_deploy.pipeline.progress import Progress, silent, tracked
from rir_deploy.pipeline.sides import Runner, Side, kind_of
from rir_deploy.pipeline.views import Views, spread
from rir_deploy.quantize import mark_outputs
from rir_deploy.simulate import simulate_fp16
from rir_deploy.verify.layers import Layer, LayerComparison, LayerRow, Part, first_divergence, judge, unrelated
from rir_deploy.verify.limits import LIMITS, Limit

# Images that are compared, and how many of them at once: all feature maps of three graphs are in memory.
IMAGES, AT_ONCE = 32, 4
# The blocks of what is between a graph and what it stands for.
EDGES = EXPORT, RUNTIME = "export", "runtime"


@dataclass(frozen=True)
class LayerReport:
    """``rows`` in the candidate's order; none, and a ``note`` why, where the two graphs cannot be matched."""

    rows: tuple[LayerRow, ...]
    precision: str
    images: int
    note: str

    @property
    def divergence(self) -> LayerRow | None:
        return first_divergence(self.rows)

    def to_dict(self) -> dict[str, object]:
        return {
            "images": self.images,
            "note": self.note,
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True)
class Opened:
    """A side with the graph that shows its layers."""

    path: Path
    side: Side
    graph: ir.Model
    preprocessing: Preprocessing

    def feed(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        first = self.graph.graph.inputs[0]
        raw = first.dtype == ir.DataType.UINT8
        return {str(first.name): images if raw else self.preprocessing.normalize(images)}

    def runner(self) -> Runner:
        return self.side.make_runner(self.preprocessing)


def compare_layers(
    reference: Opened, candidate: Opened, views: Views, precision: str, progress: Progress = silent
) -> LayerReport:
    """Hold every feature map of the candidate that the reference has too against it.

    A checkpoint is looked at in its raw trace, an engine in the graph it was built from; that these answer as the
    checkpoint and the engine themselves do is looked at as well, as the blocks "export" and "runtime".

    Raises:
        BackendError: ONNX Runtime is not installed.
    """
    limit = LIMITS[precision]
    batches = _Batches(views, reference, candidate)
    observed = _Observed(reference, candidate, next(iter(batches)), limit)
    edges = _Edges(reference, candidate, limit)
    for images in tracked(batches, "layers", len(batches), progress):
        left, right = observed.update(*images)
        edges.update(images, left, right)
    comparisons = observed.comparisons
    strangers = unrelated(comparisons)
    if strangers or len(comparisons) < 2:
        reason = (
            f"{len(strangers)} tensors bear the name of others ('{strangers[0]}' among them)"
            if strangers
            else "no tensor between input and output is known by name or provenance in both"
        )
        note = f"the layers of the two graphs cannot be matched: {reason}"
        return LayerReport(edges.rows(*EDGES), precision, batches.images, note)
    rows = (*edges.rows(EXPORT), *observed.believed(judge(comparisons, limit)), *edges.rows(RUNTIME))
    return LayerReport(rows, precision, batches.images, "")


def open_graph(
    path: Path, side: Side, dataset: Dataset, factory: str | None, *, trust: bool = False, weights: str | None = None
) -> Opened:
    """The graph of a side, in FP32 arithmetic that rounds to FP16 where it is FP16; ``trust`` as an engine was opened.

    Raises:
        UsageError: a bundle, whose graphs are not at hand.
    """
    preprocessing = dataset.preprocessing
    kind = kind_of(path)
    if kind == "checkpoint":
        model = trace(path, factory, preprocessing.input_shape, weights)
    elif kind == "onnx":
        model = load_onnx(path)
    elif kind == "engine":
        folder = path if path.is_dir() else path.parent
        model = load_onnx(folder / check_engine(folder, trust=trust).graph.name)
    else:
        raise UsageError(f"'{path}' shows no layers; name a checkpoint, an ONNX file or an engine")
    return look_into(path, side, model, preprocessing)


def look_into(path: Path, side: Side, model: ir.Model, preprocessing: Preprocessing) -> Opened:
    """The same with the graph at hand."""
    half = any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
    prepared = prepare(simulate_fp16(model) if half else model)
    common.RemoveUnusedNodesPass()(prepared)  # what nobody reads is no layer
    return Opened(path, side, prepared, preprocessing)


class _Batches:
    """The same few images as both sides see them, some at a time."""

    def __init__(self, views: Views, reference: Opened, candidate: Opened) -> None:
        total = len(views.reference)
        self._views = views
        low = max(reference.side.batch[0], candidate.side.batch[0])
        high = min(reference.side.batch[1], candidate.side.batch[1])
        if low > high:
            left, right = reference.side.batch, candidate.side.batch
            raise UsageError(
                f"the two sides take no batch in common ({left[0]} to {left[1]}, {right[0]} to {right[1]}), so their "
                "layers cannot be held side by side; leave out --layers, or build one for the other's batch"
            )
        chosen = spread(total, max(IMAGES, low))
        self._indices = np.resize(chosen, max(len(chosen), low))  # one batch at least
        self._size = max(min(max(AT_ONCE, low), high, total), low)
        self.images = len(self._indices) // self._size * self._size  # whole batches only

    def __len__(self) -> int:
        return self.images // self._size

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for start in range(0, self.images, self._size):
            part = self._indices[start : start + self._size]
            left = self._views.reference.raw(part)
            yield left, left if self._views.candidate is self._views.reference else self._views.candidate.raw(part)


class _Observed:
    """Three runs of every batch: the reference, the candidate, and the candidate layer by layer."""

    def __init__(
        self, reference: Opened, candidate: Opened, images: tuple[NDArray[np.uint8], ...], limit: Limit
    ) -> None:
        self._reference, self._candidate = reference, candidate
        found = match(find_feature_maps(reference.graph), find_feature_maps(candidate.graph))
        sources = [piece.source for one in found for piece in one.pieces]
        self._left = GraphSession(_marked(reference.graph, sources))
        self._right = GraphSession(_marked(candidate.graph, [one.candidate for one in found]))
        left, right = self._left.run(reference.feed(images[0])), self._right.run(candidate.feed(images[1]))
        self._matches = [one for one in found if one.gather(left).shape == right[one.candidate.name].shape]
        graph = candidate.graph.graph
        first = network_input(graph)
        self._cut = [one for one in self._matches if is_cut(one.candidate, graph.inputs[0], first)]
        isolated = isolate(candidate.graph, [one.candidate for one in self._cut])
        self._first = reading_images(isolated, [one.candidate.name for one in self._matches])
        self._own = GraphSession(isolated)
        self.comparisons = [LayerComparison(one.layer(), limit) for one in self._matches]

    def update(self, images: NDArray[np.uint8], others: NDArray[np.uint8]) -> tuple[Arrays, Arrays]:
        """One batch as both sides see it; returns all tensors of the reference and of the candidate, by name."""
        left, right = self._left.run(self._reference.feed(images)), self._right.run(self._candidate.feed(others))
        expected = {one.candidate.name: one.gather(left) for one in self._matches}
        given = {input_name(one.candidate): self._given(one, expected) for one in self._cut}
        own = {**right, **self._own.run({**self._candidate.feed(others), **given})}
        for one, comparison in zip(self._matches, self.comparisons, strict=True):
            name = one.candidate.name
            comparison.update(one.gather_all(left), one.pad(right[name]), one.pad(own[name]))
        return left, right

    def believed(self, rows: tuple[LayerRow, ...]) -> tuple[LayerRow, ...]:
        """A graph may take its input on another scale, as one does whose fold took the normalisation in. The input is
        wrong only if what reads it is."""
        off = {row.layer.tensor for row in rows if row.verdict == "diverges"}
        inputs = {one.candidate.name for one in self._matches if one.is_input}
        if (self._first & off) - inputs:
            return rows
        return tuple(row for row in rows if row.layer.tensor not in inputs or row.verdict != "diverges")

    @staticmethod
    def _given(one: Match, expected: Arrays) -> NDArray[np.floating]:
        return one.candidate.scale(expected[one.candidate.name], 1).astype(np.float32)


class _Edges:
    """What no graph shows: whether a trace answers as its checkpoint, and an engine as the graph it was built from."""

    def __init__(self, reference: Opened, candidate: Opened, limit: Limit) -> None:
        self._compared: list[tuple[str, Opened, bool, Runner, LayerComparison]] = []
        for is_left, opened in ((True, reference), (False, candidate)):
            block = EXPORT if opened.side.kind == "checkpoint" else RUNTIME
            output = opened.graph.graph.outputs[0]
            classes = output.shape[1] if output.shape is not None and isinstance(output.shape[1], int) else 0
            part = Part(0, classes, opened.side.runs_on, block, None)
            layer = Layer(opened.side.path, block, str(output.name), (part,))
            comparison = LayerComparison(layer, LIMITS.get(opened.side.precision, limit))
            self._compared.append((block, opened, is_left, opened.runner(), comparison))

    def update(self, images: tuple[NDArray[np.uint8], ...], left: Arrays, right: Arrays) -> None:
        for block, opened, is_left, run, comparison in self._compared:
            shown = run(images[0] if is_left else images[1])
            graph = (left if is_left else right)[str(opened.graph.graph.outputs[0].name)]
            pair = (shown, graph) if block == EXPORT else (graph, shown)
            comparison.update(pair[0], pair[1], pair[1])

    def rows(self, *blocks: str) -> tuple[LayerRow, ...]:
        return tuple(one.row() for block, *_, one in self._compared if block in blocks)


def _marked(model: ir.Model, maps: list[FeatureMap]) -> ir.Model:
    """The model with the maps among its outputs; the input is known anyway."""
    inputs = {str(value.name) for value in model.graph.inputs}
    return mark_outputs(model, [one.name for one in maps if one.name not in inputs])
