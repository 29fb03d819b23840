"""How far two sets of outputs are apart, accumulated batch by batch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError

Array = NDArray[np.floating]


@dataclass(frozen=True)
class OutputMetrics:
    """Errors of a candidate's outputs; ``sqnr_db`` is infinite where they are equal."""

    max_abs_error: float
    mean_abs_error: float
    max_abs_reference: float
    max_relative_error: float
    sqnr_db: float
    within_tolerance: bool

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "sqnr_db": self.sqnr_db if math.isfinite(self.sqnr_db) else None}


@dataclass(frozen=True)
class Tolerance:
    """|candidate - reference| <= atol + rtol * (largest |reference| seen); the form numpy's allclose has, but
    relative to the largest output, since a logit near zero is not more precise than its neighbours."""

    atol: float
    rtol: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.atol) and math.isfinite(self.rtol) and self.atol >= 0 and self.rtol >= 0):
            raise UsageError(f"tolerances must be finite and at least 0, not atol {self.atol} and rtol {self.rtol}")


class OutputComparison:
    """Feed it batches of equal shape, then ask for `metrics`."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_abs = self._sum_squares = self._sum_reference = 0.0
        self._max_error = self._max_reference = 0.0

    def update(self, reference: Array, candidate: Array) -> None:
        """Add two batches [n, ...] of equal shape.

        Raises:
            InputError: the shapes differ.
        """
        if reference.shape != candidate.shape:
            raise InputError(
                f"the outputs have shapes {reference.shape} and {candidate.shape}: these are not two versions of "
                "one model"
            )
        wide = reference.astype(np.float64)
        error = candidate.astype(np.float64) - wide
        # NaN must never pass for a small error.
        worst = float(np.abs(error).max(initial=0.0))
        self._max_error = math.nan if math.isnan(worst) else max(self._max_error, worst)
        self._max_reference = max(self._max_reference, float(np.abs(wide).max(initial=0.0)))
        self._sum_abs += float(np.abs(error).sum())
        self._sum_squares += float(np.square(error).sum())
        self._sum_reference += float(np.square(wide).sum())
        self._count += error.size

    def metrics(self, tolerance: Tolerance) -> OutputMetrics:
        """The figures over all batches. InputError where there were none."""
        if not self._count:
            raise InputError("there is nothing to compare: the data holds no images")
        bound = tolerance.atol + tolerance.rtol * self._max_reference
        relative = self._max_error / self._max_reference if self._max_reference else math.inf
        return OutputMetrics(
            max_abs_error=self._max_error,
            mean_abs_error=self._sum_abs / self._count,
            max_abs_reference=self._max_reference,
            max_relative_error=0.0 if self._max_error == 0.0 else relative,
            sqnr_db=_decibels(self._sum_reference, self._sum_squares),
            within_tolerance=self._max_error <= bound,  # False for NaN
        )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    ratio = signal / noise  # 0 where the noise is infinite, NaN where there is NaN
    return 10.0 * math.log10(ratio) if ratio > 0.0 else -math.inf
