"""The bounds a candidate has to keep, by precision, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.errors import UsageError
from rir_deploy.verify.outputs import Tolerance


@dataclass(frozen=True)
class Gate:
    """Bounds a candidate must keep.

    Attributes:
        min_agreement: smallest share of equal predictions, 0 to 1.
        max_top1_drop: largest drop of top-1 in points, as it was measured.
        tolerance: of the outputs; None judges by predictions alone.
        margin: largest true drop of top-1 in points that the images must rule out (non-inferiority); None rules
            nothing out, and the verdict on ``max_top1_drop`` is told but not asked for.
        steady: what the outputs of an image may differ by between two batch sizes, where there is no ``tolerance``,
            which bounds them otherwise.
        max_class_drop: largest drop of a class's recall in points, where it is no chance.
        by_predictions: predictions are what is judged, and no error of an output: the images have to be able to prove
            something of them, the outputs to have the reference's scale and a signal over ``min_sqnr_db``, and no few
            images to be answered in another way than by rounding.
        reason: why these bounds.

    Raises:
        UsageError: a bound out of its range.
    """

    min_agreement: float
    max_top1_drop: float
    tolerance: Tolerance | None
    margin: float | None = None
    steady: Tolerance = Tolerance(1e-3, 2e-2)
    reason: str = ""
    max_class_drop: float = 5.0
    by_predictions: bool = False
    min_sqnr_db: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_agreement <= 1.0:
            raise UsageError(f"the smallest agreement must be 0 to 1, not {self.min_agreement}")
        if not 0.0 <= self.max_top1_drop <= 100.0:
            raise UsageError(f"the largest top-1 drop must be 0 to 100 points, not {self.max_top1_drop}")
        if self.margin is not None and not 0.0 <= self.margin <= 100.0:
            raise UsageError(f"the margin must be 0 to 100 points, not {self.margin}")
        if not 0.0 <= self.max_class_drop <= 100.0:
            raise UsageError(f"the largest drop of a class must be 0 to 100 points, not {self.max_class_drop}")

    @property
    def class_allowance(self) -> float:
        """Points that any class may lose beside what the others lose: what a loss of one class is held against."""
        return min(self.max_top1_drop, self.max_class_drop / 2.0)

    def to_dict(self) -> dict[str, object]:
        tolerance = self.tolerance
        return {
            "min_agreement": self.min_agreement,
            "max_top1_drop": self.max_top1_drop,
            "margin": self.margin,
            "max_class_drop": self.max_class_drop,
            "min_sqnr_db": self.min_sqnr_db if self.by_predictions else None,
            "atol": None if tolerance is None else tolerance.atol,
            "rtol": None if tolerance is None else tolerance.rtol,
            "steady": {"atol": self.steady.atol, "rtol": self.steady.rtol},
            "reason": self.reason,
        }


GATES: dict[str, Gate] = {
    "fp32": Gate(
        min_agreement=0.999,
        max_top1_drop=0.1,
        tolerance=Tolerance(atol=1e-6, rtol=1e-4),
        reason="the same arithmetic in another order: errors are some 1e-6 of the largest output, and only near ties "
        "may flip",
        max_class_drop=1.0,
    ),
    "fp16": Gate(
        min_agreement=0.99,
        max_top1_drop=0.3,
        tolerance=Tolerance(atol=1e-3, rtol=2e-2),
        reason="every tensor is rounded to 11 bits: some 1e-3 of the largest output over a deep network, and "
        "predictions flip where two logits nearly tie",
        max_class_drop=2.0,
    ),
    "int8": Gate(
        min_agreement=0.97,
        max_top1_drop=1.0,
        tolerance=None,
        reason="8 bits a tensor leave some 30 dB: what counts is what is predicted, class by class too; a bound on "
        "each output would only restate the step size",
        max_class_drop=5.0,
        by_predictions=True,
    ),
}
