"""verify: two sides on the same images, judged by the gate of the candidate's precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rir_deploy.errors import unknown_name
from rir_deploy.pipeline.bundled import open_any
from rir_deploy.pipeline.chosen import check_not_chosen_on
from rir_deploy.pipeline.layers import LayerReport, compare_layers, open_graph
from rir_deploy.pipeline.places import PREPROCESSING
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import Side
from rir_deploy.pipeline.views import Views, open_views, spread
from rir_deploy.verify import GATES, Gate, Tolerance, VerifyResult, verify
from rir_deploy.verify.batches import BatchCheck, check_batches
from rir_deploy.verify.layers import LayerRow

# Images that batch sizes are tried with, and the largest size that is tried: memory grows with it. So much of it may
# the images of a batch take, as float32. One map of 64 channels takes 21 times as much as an image of three, and some
# three of them are alive at once: 1 GB in all.
BATCH_IMAGES, LARGEST_BATCH, BATCH_BYTES = 16, 1024, 2**24
# Sizes under this are so cheap that odd ones (the largest, a prime) are tried beside the powers of two.
_SMALL = 128
# By so many images, or this share of them, a checkpoint may miss the accuracy that it records: near ties.
_RECORD_IMAGES, _RECORD_SHARE = 1, 0.001


@dataclass(frozen=True)
class VerifyRequest:
    """What to compare, and how.

    ``data`` defaults to the recipe's test part; the bounds left out are those of the precision's gate. ``atol`` and
    ``rtol`` are by name of an output, "" for all. ``batches`` tries the batch sizes that the candidate takes,
    ``layers`` compares feature maps. ``names`` choose from a bundle as the candidate; as the reference, a bundle is
    its FP32 graph. ``weights`` chooses among several sets of weights in a checkpoint: "model", "ema" or a key.
    """

    reference: Path
    candidate: Path
    data: str | None = None
    recipe: str | None = None
    factory: str | None = None
    precision: str | None = None
    atol: Mapping[str, float] = field(default_factory=dict)
    rtol: Mapping[str, float] = field(default_factory=dict)
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    batch: int = 32
    threads: int | None = None
    simulate: bool = False
    trust: bool = False
    margin: float | None = None
    batches: bool = True
    layers: bool = False
    names: tuple[str, ...] = ()
    weights: str | None = None
    max_class_drop: float | None = None
    min_sqnr_db: float | None = None


@dataclass(frozen=True)
class Verified:
    """The verdict with both sides, the data and the gate it was reached by.

    ``failures`` are all that did not hold: of the result and beyond it. ``divergence`` is where the sides part, as far
    as that is known.
    """

    result: VerifyResult
    failures: tuple[str, ...]
    reference: dict[str, object]
    candidate: dict[str, object]
    views: Views
    gate_name: str
    gate: Gate
    batches: tuple[BatchCheck, ...]
    layers: LayerReport | None
    divergence: dict[str, object] | None

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        outcome = self.result.to_dict()
        for side in ("reference", "candidate"):
            scores = outcome[side]
            assert isinstance(scores, dict)
            outcome[side] = {**getattr(self, side), **scores}
        for one in (*outcome["classes"], outcome["worst_class"]):  # type: ignore[misc]
            if one is not None:
                one["name"] = self.class_name(one["label"])
        return {
            **outcome,
            "passed": self.passed,
            "failures": list(self.failures),
            "simulation": self.candidate["simulation"] is not None,
            "data": self.views.reference.source.name,
            "recipe": self.views.recipe.name,
            "preprocessing": list(self.views.differences),
            "batches": [check.to_dict() for check in self.batches],
            "layers": None if self.layers is None else self.layers.to_dict(),
            "first_divergence": self.divergence,
            "gate": {"precision": self.gate_name, **self.gate.to_dict()},
        }

    def class_name(self, label: int) -> str:
        """Of a class; an output that is none is named by its number."""
        names = self.views.recipe.classes
        return names[label] if label < len(names) else str(label)

    def flips(self) -> list[dict[str, Any]]:
        """Every flip, with the image's name and those of the classes; an output that is none is named by its number."""
        source = self.views.reference.source
        return [
            {
                **flip.to_dict(),
                "name": source.describe(flip.image),
                "classes": [None if one is None else self.class_name(one) for one in (flip.reference, flip.candidate)],
            }
            for flip in self.result.accuracy.flips
        ]


def verify_files(request: VerifyRequest, progress: Progress = silent) -> Verified:
    """Compare a candidate with its reference.

    Raises:
        UsageError, InputError, BackendError: a side, the recipe or the data cannot be used. A failed gate is no
            error here: it is the result.
    """
    reading: dict[str, Any] = {"threads": request.threads, "simulate": request.simulate, "trust": request.trust}
    reading |= {"model": request.factory, "weights": request.weights}
    with (
        open_any(request.reference, reference=True, **reading) as (reference, left),
        open_any(request.candidate, request.names, **reading) as (candidate, right),
    ):
        views = open_views(request.data, request.recipe, reference, candidate)
        check_not_chosen_on(right, views.candidate)
        name = request.precision or candidate.precision
        gate = choose_gate(name, candidate.output, request)
        result = compare_sides(reference, candidate, views, gate, batch=request.batch, progress=progress)
        checks = try_batches(candidate, views, gate, request.batch) if request.batches else ()
        layers = None
        if request.layers:
            looking: dict[str, Any] = {"weights": request.weights, "trust": request.trust}
            first = open_graph(left, reference, views.reference, request.factory, **looking)
            second = open_graph(right, candidate, views.candidate, request.factory, **looking)
            layers = compare_layers(first, second, views, name, progress)
        preprocessing = [*_preprocessing_failures(views), *_record_failures(reference, result, views)]
        batches = [f"at batch {check.size}: {check.reason}" for check in checks if not check.passed]
        divergence = None if layers is None else layers.divergence
        return Verified(
            result,
            (*preprocessing, *result.failures, *batches, *([] if divergence is None else [divergence.sentence()])),
            reference.to_dict(),
            candidate.to_dict(),
            views,
            name,
            gate,
            checks,
            layers,
            _first(preprocessing, divergence),
        )


def _first(preprocessing: list[str], divergence: LayerRow | None) -> dict[str, object] | None:
    if preprocessing:
        return {"node": None, "block": PREPROCESSING}
    return None if divergence is None else divergence.to_dict()


def compare_sides(
    reference: Side, candidate: Side, views: Views, gate: Gate, *, batch: int, progress: Progress = silent
) -> VerifyResult:
    """Both sides over a whole data set, in batches that both take; else each cuts and pads them to its own."""
    low, high = (pick(side.batch[i] for side in (reference, candidate)) for i, pick in ((0, max), (1, min)))
    batch = max(low, min(batch, high))
    runners = views.runners(reference, candidate, batch)
    return verify(views.batches(batch, "verifying", progress), *runners, gate, views.recipe.classes)


def try_batches(side: Side, views: Views, gate: Gate, batch: int) -> tuple[BatchCheck, ...]:
    """A few images in batches of all sizes that a side takes and that could be special (see `batch_sizes`).

    An ONNX file with an open batch does not say how much it takes: sizes over those that the comparison ran are tried
    until one does not run.
    """
    dataset = views.candidate
    images = dataset.raw(spread(len(dataset), BATCH_IMAGES))
    run = side.make_runner(dataset.preprocessing)
    sizes = batch_sizes(side, batch, 4 * math.prod(dataset.preprocessing.input_shape))
    high = side.batch[1]
    promised = high if high <= LARGEST_BATCH else max(side.batch[0], min(batch, len(dataset)))
    return check_batches(run, images, sizes, gate.tolerance or gate.steady, promised)


def batch_sizes(side: Side, batch: int, image_bytes: int = 0) -> list[int]:
    """1 to 8, every power of two, and of an engine the best and the largest: a fault may be of one size alone.

    Where the largest is a matter of memory only, as in an ONNX file, it is `LARGEST_BATCH`, or what images of
    ``image_bytes`` fill `BATCH_BYTES` with; never less than ``batch``, which was run anyway.
    """
    low, high = side.batch
    bound = LARGEST_BATCH if not image_bytes else min(LARGEST_BATCH, BATCH_BYTES // image_bytes)
    high = min(high, max(low, bound, batch))
    powers = [2**n for n in range(high.bit_length())]
    prime = next((n for n in range(high, 7, -1) if all(n % d for d in range(2, int(n**0.5) + 1))), 7)
    own = [high, side.optimum or low] if side.optimum is not None or high < _SMALL else []
    sizes = {low, *range(1, 9), *powers, *own, prime if prime < _SMALL else low}
    return sorted(size for size in sizes if low <= size <= high)


def choose_gate(name: str, output: str, request: VerifyRequest) -> Gate:
    """The preset of a precision with the request's own bounds in place.

    Raises:
        UsageError: there is no such precision or output; a bound out of its range.
    """
    if name not in GATES:
        raise unknown_name("precision", name, GATES)
    gate = GATES[name]
    for key in {*request.atol, *request.rtol} - {"", output}:
        raise unknown_name("output", key, [output])
    own = ("min_agreement", "max_top1_drop", "max_class_drop", "min_sqnr_db", "margin")
    gate = replace(gate, **{key: value for key in own if (value := getattr(request, key)) is not None})
    atol, rtol = (bounds.get(output, bounds.get("")) for bounds in (request.atol, request.rtol))
    if atol is not None or rtol is not None:
        preset = gate.tolerance or Tolerance(0.0, 0.0)
        both = preset.atol if atol is None else atol, preset.rtol if rtol is None else rtol
        gate = replace(gate, tolerance=Tolerance(*both))
    return gate


def _preprocessing_failures(views: Views) -> list[str]:
    if not views.differences:
        return []
    return [f"the candidate records another preprocessing than the reference: {'; '.join(views.differences)}"]


def _record_failures(reference: Side, result: VerifyResult, views: Views) -> list[str]:
    """A reference that misses the accuracy it records, on as many images of the data set it names."""
    record, found, images = reference.accuracy or {}, result.accuracy.reference_top1, result.accuracy.images
    top1 = record.get("top1")
    same = record.get("dataset") == views.recipe.name and record.get("n") == images
    if not same or found is None or not isinstance(top1, float):
        return []
    if abs(found - top1) * images <= max(_RECORD_IMAGES, _RECORD_SHARE * images) + 1e-6:
        return []
    return [
        f"the reference itself has {found:.2%} of '{views.reference.source.name}' right, and its checkpoint records "
        f"{top1:.2%} on as many images: these are not the preprocessing, the labels or the images it was tested with"
    ]
