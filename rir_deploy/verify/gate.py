"""The parity gate: both sides on the same images, and what did not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.verify.accuracy import Accuracy, AccuracyComparison
from rir_deploy.verify.outputs import OutputComparison, OutputMetrics
from rir_deploy.verify.presets import Gate
from rir_deploy.verify.statistics import DropTest, judge_drop

# A side of the comparison: uint8 images [n, H, W, C] in, logits [n, classes] out.
Runner = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
# So many flips are in the JSON; the count is always of all.
FLIPS_SHOWN = 100


@dataclass(frozen=True)
class VerifyResult:
    """The comparison and its verdict; ``failures`` says in words what did not hold, ``drop`` is None without labels."""

    accuracy: Accuracy
    outputs: OutputMetrics
    drop: DropTest | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        """Plain data. The flips that would be hardest to explain come first: where the reference was surest."""
        accuracy = self.accuracy
        flips = sorted(accuracy.flips, key=lambda flip: -flip.reference_margin)[:FLIPS_SHOWN]
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "images": accuracy.images,
            "reference": {"top1": accuracy.reference_top1, "top5": accuracy.reference_top5},
            "candidate": {"top1": accuracy.candidate_top1, "top5": accuracy.candidate_top5},
            "agreement": accuracy.agreement,
            "top1_drop": accuracy.top1_drop,
            "drop": None if self.drop is None else self.drop.to_dict(),
            "flipped": len(accuracy.flips),
            "flips": [flip.to_dict() for flip in flips],
            **self.outputs.to_dict(),
        }


def verify(
    batches: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64] | None]],
    reference: Runner,
    candidate: Runner,
    gate: Gate,
) -> VerifyResult:
    """Run both sides on the same batches (images, labels) and judge the candidate.

    Raises:
        InputError: there are no images, or the two sides answer in different shapes.
    """
    outputs, accuracy = OutputComparison(), AccuracyComparison()
    for images, labels in batches:
        left, right = reference(images), candidate(images)
        outputs.update(left, right)
        accuracy.update(left, right, labels)
    metrics = outputs.metrics(gate.tolerance)
    result = accuracy.result()
    margin = gate.max_top1_drop if gate.margin is None else gate.margin
    drop = None if result.pairs is None else judge_drop(result.pairs, margin)
    return VerifyResult(result, metrics, drop, tuple(_failures(result, metrics, drop, gate)))


def _failures(accuracy: Accuracy, metrics: OutputMetrics, drop: DropTest | None, gate: Gate) -> Iterable[str]:
    if not np.isfinite(metrics.max_abs_error):
        yield "the candidate's outputs hold NaN or infinite numbers"
    if accuracy.agreement < gate.min_agreement:
        yield f"agreement {accuracy.agreement:.4%} is under {gate.min_agreement:.4%}"
    measured = accuracy.top1_drop
    if measured is not None and measured > gate.max_top1_drop:
        yield f"the top-1 drop of {measured:.2f} points is over {gate.max_top1_drop:.2f}"
    if gate.tolerance is not None and not metrics.within_tolerance:
        bound = gate.tolerance.atol + gate.tolerance.rtol * metrics.max_abs_reference
        yield f"the largest error {metrics.max_abs_error:.3g} is over {bound:.3g} (atol + rtol * largest output)"
    if gate.margin is not None:
        yield from _not_shown(drop, gate.margin)


def _not_shown(drop: DropTest | None, margin: float) -> Iterable[str]:
    """Why non-inferiority, which was asked for, does not follow."""
    if drop is None:
        yield f"a drop under the margin of {margin:g} points cannot be shown on images without labels"
    elif drop.verdict != "non-inferior":
        needed = "" if drop.images_needed is None else f"; some {drop.images_needed:,} images would decide it"
        yield (
            f"the true top-1 drop may be as large as {drop.high:.2f} points (95 % interval {drop.low:.2f} to "
            f"{drop.high:.2f}), which does not rule out the margin of {margin:g}{needed}"
        )
