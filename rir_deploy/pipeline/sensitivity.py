"""Which layers a quantised graph keeps in float: measured on images, within a budget of accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.engines.base import input_spec
from rir_deploy.graph.prepare import label
from rir_deploy.pipeline.calibrate import open_session
from rir_deploy.pipeline.evaluation import Evaluation
from rir_deploy.pipeline.images import BATCH, Images
from rir_deploy.pipeline.places import Place, place_of
from rir_deploy.pipeline.progress import Progress, tracked
from rir_deploy.precision import KeptNode
from rir_deploy.quantize import QuantizeOptions, Tuned, quantize
from rir_deploy.quantize.chosen_on import ChosenOn
from rir_deploy.quantize.layers import read_layers
from rir_deploy.quantize.search import LayerDamage, fewest_kept, rank, sqnr_db
from rir_deploy.quantize.select import members_of
from rir_deploy.verify.statistics import DropTest, Pairs, count_pairs, judge_drop

# Why a layer that the search keeps stays in float.
_REASON = "the budget of accuracy asks for it"
# Images a layer is ranked on: the ranking needs no more, and each layer is run on them.
_IMAGES = 128


@dataclass(frozen=True)
class Sensitivity:
    """The ranking, worst first, and how many of it stay in float.

    Attributes:
        images: that the ranking was measured on.
        test: the drop of top-1 on the evaluation images with those kept, held against the budget; None without one.
        chosen_on: the evaluation images, which must not be those of the proof; None without a budget.
    """

    ranking: tuple[LayerDamage, ...]
    kept: int
    images: int
    test: DropTest | None = None
    chosen_on: ChosenOn | None = None

    def in_model(self, model: ir.Model) -> Sensitivity:
        """With the precision that every layer has in the quantised model."""
        found = read_layers(model)
        return replace(self, ranking=tuple(replace(one, precision=found[one.node].precision) for one in self.ranking))

    def to_dict(self) -> dict[str, object]:
        layers = [{**asdict(one), "members": list(one.members)} for one in self.ranking]
        return {"images": self.images, "kept": self.kept, **self.outcome(), "layers": layers}

    def outcome(self) -> dict[str, object]:
        """``drop``, a fraction, and ``drop_test`` with its interval in points; None without a budget."""
        test = self.test
        found = None if test is None else {"images": test.pairs.images, **test.to_dict()}
        return {"drop": None if test is None else test.pairs.drop, "drop_test": found}

    @property
    def warning(self) -> str | None:
        """Where the budget is kept on the images that were looked at, and they are too few to say so of others."""
        test = self.test
        if test is None or test.verdict == "non-inferior":
            return None
        needed = "" if test.images_needed is None else f"; about {test.images_needed:,} would tell"
        return (
            f"the budget of {test.margin:g} points is kept on the {test.pairs.images:,} evaluation images, which do "
            f"not tell whether it is on others: 95 % interval {test.low:.2f} to {test.high:.2f} points{needed}"
        )


def find_sensitivity(
    model: ir.Model,
    tuned: Tuned,
    options: QuantizeOptions,
    images: Images,
    evaluation: Evaluation | None,
    progress: Progress,
) -> Sensitivity:
    """Rank every layer of a calibrated model, and choose what stays in float.

    Args:
        images: those of calibration, for the ranking.
        evaluation: others, and the budget to keep on them; None only ranks.

    Raises:
        GateError: the budget cannot be kept.
    """
    plain = quantize(model, tuned.table, options, tuned.rounded)
    layers = [(node, members_of(plain.model, node)) for node in plain.quantized]
    some = images.spread(_IMAGES)
    batches = list(some.batches("reading images", progress))
    reference = _outputs(model, batches)
    steps = iter(tracked(layers, "ranking layers", len(layers), progress))

    def damage(node: str) -> float | None:
        next(steps)
        others = tuple(other for other, _ in layers if other != node)
        return _sqnr(reference, _outputs(_keeping(model, tuned, options, others), batches))

    places = {label(node): place_of(node.outputs[0]) for node in model.graph}
    ranking = [_placed(one, places.get(one.node)) for one in rank(layers, damage)]
    if evaluation is None:
        return Sensitivity(tuple(ranking), 0, len(some.indices))
    right = _Right(evaluation.dataset, progress)
    original = right(model)
    pairs: dict[tuple[str, ...], Pairs] = {}

    def drop(nodes: tuple[str, ...]) -> float:
        pairs[nodes] = count_pairs(original, right(_keeping(model, tuned, options, nodes)))
        return pairs[nodes].points

    kept = fewest_kept(ranking, drop, evaluation.max_drop)
    test = judge_drop(pairs[tuple(layer.node for layer in ranking[:kept])], evaluation.max_drop)
    return Sensitivity(tuple(ranking), kept, len(some.indices), test, evaluation.chosen_on)


def _placed(layer: LayerDamage, place: Place | None) -> LayerDamage:
    return layer if place is None else replace(layer, block=place.block, stream=place.stream)


def keep_too(options: QuantizeOptions, nodes: Iterable[str]) -> QuantizeOptions:
    """The options with more nodes in float, because of a budget."""
    return replace(options, pinned=(*options.pinned, *(KeptNode(node, _REASON) for node in nodes)))


def _keeping(model: ir.Model, tuned: Tuned, options: QuantizeOptions, nodes: tuple[str, ...]) -> ir.Model:
    return quantize(model, tuned.table, keep_too(options, nodes), tuned.rounded).model


class _Right:
    """Which of a data set's images [n] a graph gets right."""

    def __init__(self, dataset: Dataset, progress: Progress) -> None:
        self._dataset, self._progress = dataset, progress

    def __call__(self, model: ir.Model) -> NDArray[np.bool_]:
        dataset = self._dataset
        indices = np.arange(len(dataset))
        count = -(-len(dataset) // BATCH)
        batches = tracked(_inputs(model, dataset, indices), "searching", count, self._progress)
        outputs = np.concatenate(_outputs(model, batches))
        assert dataset.labels is not None
        return np.asarray(outputs.argmax(axis=1) == dataset.labels)


def _inputs(model: ir.Model, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[NDArray[np.generic]]:
    raw = input_spec(model).dtype == "uint8"
    for batch in dataset.batches(BATCH, indices):
        yield batch.images if raw else batch.tensor(dataset.preprocessing)


def _outputs(
    model: ir.Model, batches: Iterator[NDArray[np.generic]] | list[NDArray[np.generic]]
) -> list[NDArray[np.float64]]:
    """The first output of every batch."""
    name = str(model.graph.outputs[0].name)
    with open_session(model, ()) as run:
        return [np.asarray(run(batch)[name], dtype=np.float64) for batch in batches]


def _sqnr(reference: list[NDArray[np.float64]], outputs: list[NDArray[np.float64]]) -> float | None:
    noise = sum(float(((one - other) ** 2).sum()) for one, other in zip(reference, outputs, strict=True))
    signal = sum(float((one**2).sum()) for one in reference)
    return None if noise == 0 or signal == 0 else sqnr_db(signal, noise)
