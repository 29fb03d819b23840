"""The parity gate: both sides on the same images, and what did not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rir_deploy.verify.accuracy import Accuracy, AccuracyComparison
from rir_deploy.verify.classes import ClassRecall, worst_class
from rir_deploy.verify.evidence import Distinct, image_doubts, reference_doubts
from rir_deploy.verify.outliers import Outliers, OutlierSearch
from rir_deploy.verify.outputs import OutputComparison, OutputMetrics
from rir_deploy.verify.presets import Gate
from rir_deploy.verify.statistics import DropTest, judge_drop

# A side of the comparison: uint8 images [n, H, W, C] in, logits [n, classes] out.
Runner = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
# So many flips are in the JSON; the count is always of all.
FLIPS_SHOWN = 100
# The scales that outputs may have, as a share of the reference's, where no error of them is bounded.
_SCALES = (0.8, 1.25)


@dataclass(frozen=True)
class VerifyResult:
    """The comparison and its verdict.

    Attributes:
        drop: None without labels.
        failures: what did not hold, in words.
        doubts: why predictions on these images prove nothing. What is wrong with the images themselves fails a gate
            that goes by predictions; a reference that only guesses leaves its drop without a verdict.
        recalls: class by class; none without labels.
        outliers: images that are answered wrongly in another way than by rounding.
    """

    accuracy: Accuracy
    outputs: OutputMetrics
    drop: DropTest | None
    failures: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    recalls: tuple[ClassRecall, ...] = ()
    outliers: Outliers = Outliers()

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def worst_class(self) -> ClassRecall | None:
        return worst_class(self.recalls)

    def to_dict(self) -> dict[str, object]:
        """Plain data. The flips that would be hardest to explain come first: where the reference was surest."""
        accuracy, worst = self.accuracy, self.worst_class
        flips = sorted(accuracy.flips, key=lambda flip: -flip.reference_margin)[:FLIPS_SHOWN]
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "doubts": list(self.doubts),
            "images": accuracy.images,
            "distinct_images": accuracy.distinct,
            "reference": {"top1": accuracy.reference_top1, "top5": accuracy.reference_top5},
            "candidate": {"top1": accuracy.candidate_top1, "top5": accuracy.candidate_top5},
            "agreement": accuracy.agreement,
            "top1_drop": accuracy.top1_drop,
            "drop": None if self.drop is None else self.drop.to_dict(),
            "classes": [one.to_dict() for one in self.recalls],
            "worst_class": None if worst is None else worst.to_dict(),
            "flipped": len(accuracy.flips),
            "flips": [flip.to_dict() for flip in flips],
            "outliers": self.outliers.to_dict(),
            **self.outputs.to_dict(),
        }


def verify(
    batches: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64] | None]],
    reference: Runner,
    candidate: Runner,
    gate: Gate,
    names: Sequence[str] = (),
) -> VerifyResult:
    """Run both sides on the same batches (images, labels) and judge the candidate; ``names`` are those of the classes.

    Raises:
        InputError: there are no images, or the two sides answer in different shapes.
    """
    outputs, accuracy, search, seen = OutputComparison(), AccuracyComparison(), OutlierSearch(), Distinct()
    for images, labels in batches:
        left, right = reference(images), candidate(images)
        outputs.update(left, right)
        fresh = seen.fresh(images, len(left))
        accuracy.update(left, right, labels, fresh)
        search.update(left[fresh], right[fresh])
    metrics, result, answered = outputs.metrics(gate.tolerance), accuracy.result(), accuracy.answered()
    margin = gate.max_top1_drop if gate.margin is None else gate.margin
    of_images, of_reference = image_doubts(answered), reference_doubts(answered)
    found = (*of_images, *of_reference)
    drop = None if result.pairs is None else judge_drop(result.pairs, margin, proving=not found)
    recalls = accuracy.recalls(gate.class_allowance)
    verdict = VerifyResult(result, metrics, drop, (), found, recalls, search.outliers())
    failures = (*_failures(verdict, gate, names), *_no_proof(of_images, of_reference, gate))
    return replace(verdict, failures=failures)


def _failures(found: VerifyResult, gate: Gate, names: Sequence[str]) -> Iterable[str]:
    accuracy, metrics = found.accuracy, found.outputs
    if not np.isfinite(metrics.max_abs_error):
        yield "the candidate's outputs hold NaN or infinite numbers"
    if accuracy.agreement < gate.min_agreement:
        yield f"agreement {accuracy.agreement:.4%} is under {gate.min_agreement:.4%}"
    measured = accuracy.top1_drop
    if measured is not None and measured > gate.max_top1_drop:
        yield f"the top-1 drop of {measured:.2f} points is over {gate.max_top1_drop:.2f}"
    yield from _lost_classes(found.recalls, gate.max_class_drop, names)
    yield from _outputs(metrics, gate)
    if gate.by_predictions and found.outliers.is_fault:
        yield _odd(found.outliers, names)
    if gate.margin is not None:
        yield from _not_shown(found.drop, gate.margin)


def _no_proof(of_images: Sequence[str], of_reference: Sequence[str], gate: Gate) -> Iterable[str]:
    """What a gate cannot do without: images to judge predictions by, and a reference to be no worse than."""
    needed = [*of_images, *of_reference] if gate.margin is not None else list(of_images) if gate.by_predictions else []
    if needed:
        yield f"these images prove nothing of predictions, by which this gate judges: {'; '.join(needed)}"


def _lost_classes(recalls: Sequence[ClassRecall], bound: float, names: Sequence[str]) -> Iterable[str]:
    for one in recalls:
        if one.is_lost(bound):
            yield (
                f"recall of the class {_name(one.label, names)} drops by {one.drop:.1f} points, from "
                f"{one.reference:.1%} to {one.candidate:.1%} of its {one.pairs.images} images, which is over {bound:g} "
                f"and no chance (p {one.p:.1g})"
            )


def _outputs(metrics: OutputMetrics, gate: Gate) -> Iterable[str]:
    kinds = metrics.reference_kind, metrics.candidate_kind
    if kinds[0] != kinds[1]:
        yield (
            f"the reference answers with {kinds[0]} and the candidate with {kinds[1]}: one has a softmax at its end "
            "that the other has not; compare them with it or without it on both sides"
        )
    if gate.tolerance is not None and not metrics.within_tolerance:
        bound = gate.tolerance.atol + gate.tolerance.rtol * metrics.max_abs_reference
        yield f"the largest error {metrics.max_abs_error:.3g} is over {bound:.3g} (atol + rtol * largest output)"
    if not gate.by_predictions or kinds[0] != kinds[1]:
        return
    if metrics.scale is not None and not _SCALES[0] <= metrics.scale <= _SCALES[1]:
        yield (
            f"the candidate's outputs are those of the reference times {metrics.scale:.3g}: predictions stay, but a "
            "softmax or a threshold over them does not"
        )
    elif metrics.sqnr_db < gate.min_sqnr_db:
        yield f"the SQNR of the outputs, {metrics.sqnr_db:.1f} dB, is under {gate.min_sqnr_db:g} dB"


def _odd(outliers: Outliers, names: Sequence[str]) -> str:
    between = ""
    if outliers.classes is not None:
        first, second = (_name(label, names) for label in outliers.classes)
        between = f", {outliers.between} of them between the classes {first} and {second}"
    return (
        f"{outliers.exchanged} of {outliers.of} images have two outputs exchanged and {outliers.unexplained} flips are "
        f"larger than the candidate's noise explains{between}: that is no rounding"
    )


def _name(label: int, names: Sequence[str]) -> str:
    return f"'{names[label]}'" if label < len(names) else str(label)


def _not_shown(drop: DropTest | None, margin: float) -> Iterable[str]:
    """Why non-inferiority, which was asked for, does not follow."""
    if drop is None:
        yield f"a drop under the margin of {margin:g} points cannot be shown on images without labels"
    elif drop.verdict in ("undecided", "inferior"):
        needed = "" if drop.images_needed is None else f"; some {drop.images_needed:,} images would decide it"
        yield (
            f"the true top-1 drop may be as large as {drop.high:.2f} points (95 % interval {drop.low:.2f} to "
            f"{drop.high:.2f}), which does not rule out the margin of {margin:g}{needed}"
        )
