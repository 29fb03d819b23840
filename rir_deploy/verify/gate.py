"""The parity gate: what has to hold for a candidate to pass for its reference, by precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import UsageError
from rir_deploy.verify.accuracy import Accuracy, AccuracyComparison
from rir_deploy.verify.outputs import OutputComparison, OutputMetrics, Tolerance

Array = NDArray[np.generic]
# A side of the comparison: uint8 images [n, H, W, C] in, logits [n, classes] out.
Runner = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


@dataclass(frozen=True)
class Gate:
    """Bounds a candidate must keep: smallest agreement (fraction), largest top-1 drop (points), output tolerance.

    Raises:
        UsageError: a bound out of its range.
    """

    min_agreement: float
    max_top1_drop: float
    tolerance: Tolerance | None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_agreement <= 1.0:
            raise UsageError(f"the smallest agreement must be 0 to 1, not {self.min_agreement}")
        if not 0.0 <= self.max_top1_drop <= 100.0:
            raise UsageError(f"the largest top-1 drop must be 0 to 100 points, not {self.max_top1_drop}")


# FP32 differs by the order of additions only. FP16 keeps 11 bits and flips a prediction where two logits nearly tie.
# INT8 is judged by what it predicts: an elementwise bound would only restate its step size.
GATES: dict[str, Gate] = {
    "fp32": Gate(min_agreement=0.999, max_top1_drop=0.1, tolerance=Tolerance(atol=1e-6, rtol=1e-4)),
    "fp16": Gate(min_agreement=0.99, max_top1_drop=0.3, tolerance=Tolerance(atol=1e-3, rtol=2e-2)),
    "int8": Gate(min_agreement=0.97, max_top1_drop=1.0, tolerance=None),
}


@dataclass(frozen=True)
class VerifyResult:
    """The comparison and its verdict; ``failures`` says in words what did not hold."""

    accuracy: Accuracy
    outputs: OutputMetrics
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        accuracy = self.accuracy
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "images": accuracy.images,
            "reference": {"top1": accuracy.reference_top1, "top5": accuracy.reference_top5},
            "candidate": {"top1": accuracy.candidate_top1, "top5": accuracy.candidate_top5},
            "agreement": accuracy.agreement,
            "top1_drop": accuracy.top1_drop,
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
    metrics = outputs.metrics(gate.tolerance or Tolerance(0.0, 0.0))
    result = accuracy.result()
    return VerifyResult(result, metrics, tuple(_failures(result, metrics, gate)))


def _failures(accuracy: Accuracy, metrics: OutputMetrics, gate: Gate) -> Iterable[str]:
    if not np.isfinite(metrics.max_abs_error):
        yield "the candidate's outputs hold NaN or infinite numbers"
    if accuracy.agreement < gate.min_agreement:
        yield f"agreement {accuracy.agreement:.4%} is under {gate.min_agreement:.4%}"
    drop = accuracy.top1_drop
    if drop is not None and drop > gate.max_top1_drop:
        yield f"the top-1 drop of {drop:.2f} points is over {gate.max_top1_drop:.2f}"
    if gate.tolerance is not None and not metrics.within_tolerance:
        bound = gate.tolerance.atol + gate.tolerance.rtol * metrics.max_abs_reference
        yield f"the largest error {metrics.max_abs_error:.3g} is over {bound:.3g} (atol + rtol * largest output)"
