"""How far two sets of outputs are apart, accumulated batch by batch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError
from rir_deploy.verify.kinds import Kind, KindOf, KindOfCandidate, log_softmax

Array = NDArray[np.floating]
Wide = NDArray[np.float64]


@dataclass(frozen=True)
class OutputMetrics:
    """Errors of a candidate's outputs.

    Attributes:
        max_relative_error: the largest error over the largest output.
        sqnr_db: signal over noise, in power; infinite where the outputs are equal.
        within_tolerance: None where no tolerance was asked for.
        cosine, cosine_min: of the two output vectors of an image: the mean over the images, and the worst.
        kl_mean, kl_max: Kullback-Leibler divergence, in nats, of the candidate's softmax from the reference's, by
            image: what is lost where the softmax is used as a probability.
        scale: of the candidate's outputs, the mean of each image's taken off, along the reference's: 1 for the same
            scale, None where that has no meaning.
        reference_kind, candidate_kind: what either side's outputs are.
    """

    max_abs_error: float
    mean_abs_error: float
    max_abs_reference: float
    max_relative_error: float
    sqnr_db: float
    within_tolerance: bool | None
    cosine: float
    cosine_min: float
    kl_mean: float
    kl_max: float
    scale: float | None = None
    reference_kind: Kind = "logits"
    candidate_kind: Kind = "logits"

    def to_dict(self) -> dict[str, object]:
        figures = ("sqnr_db", "cosine", "cosine_min", "kl_mean", "kl_max")
        data = asdict(self)
        kinds = {"reference": data.pop("reference_kind"), "candidate": data.pop("candidate_kind")}
        return {**data, **{key: data[key] if math.isfinite(data[key]) else None for key in figures}, "kinds": kinds}


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
        self._count = self._images = 0
        self._sum_abs = self._sum_squares = self._sum_reference = 0.0
        self._max_error = self._max_reference = 0.0
        self._sum_cosine = self._sum_kl = self._max_kl = 0.0
        self._min_cosine = 1.0
        self._shared = self._varied = 0.0
        self._kind, self._other = KindOf(), KindOfCandidate()

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
        other = candidate.astype(np.float64)
        error = other - wide
        # NaN must never pass for a small error.
        worst = float(np.abs(error).max(initial=0.0))
        self._max_error = math.nan if math.isnan(worst) else max(self._max_error, worst)
        self._max_reference = max(self._max_reference, float(np.abs(wide).max(initial=0.0)))
        self._sum_abs += float(np.abs(error).sum())
        self._sum_squares += float(np.square(error).sum())
        self._sum_reference += float(np.square(wide).sum())
        self._count += error.size
        self._kind.update(wide)
        self._other.update(wide, other)
        self._compare_images(wide.reshape(len(wide), -1), other.reshape(len(other), -1))

    def _compare_images(self, reference: Wide, candidate: Wide) -> None:
        """What is a figure of each image: rows [n, outputs]."""
        if not reference.size:
            return
        cosine, divergence = _cosine(reference, candidate), _divergence(reference, candidate)
        self._images += len(reference)
        rows = reference - reference.mean(axis=1, keepdims=True)
        self._varied += float(np.square(rows).sum())
        self._shared += float((rows * candidate).sum())  # rows sum to zero: the candidate's mean does not count
        self._sum_cosine += float(cosine.sum())
        self._min_cosine = float(np.minimum(self._min_cosine, cosine.min()))  # NaN stays
        self._sum_kl += float(divergence.sum())
        self._max_kl = float(np.maximum(self._max_kl, divergence.max()))

    def metrics(self, tolerance: Tolerance | None) -> OutputMetrics:
        """The figures over all batches. InputError where there were none."""
        if not self._count:
            raise InputError("there is nothing to compare: the data holds no images")
        relative = self._max_error / self._max_reference if self._max_reference else math.inf
        return OutputMetrics(
            max_abs_error=self._max_error,
            mean_abs_error=self._sum_abs / self._count,
            max_abs_reference=self._max_reference,
            max_relative_error=0.0 if self._max_error == 0.0 else relative,
            sqnr_db=_decibels(self._sum_reference, self._sum_squares),
            within_tolerance=None if tolerance is None else self._within(tolerance),
            cosine=self._sum_cosine / self._images,
            cosine_min=self._min_cosine,
            kl_mean=self._sum_kl / self._images,
            kl_max=self._max_kl,
            scale=self._shared / self._varied if self._varied > 0.0 and math.isfinite(self._shared) else None,
            reference_kind=self._kind.kind,
            candidate_kind=self._other.kind(self._kind.kind),
        )

    def _within(self, tolerance: Tolerance) -> bool:
        return self._max_error <= tolerance.atol + tolerance.rtol * self._max_reference  # False for NaN


def _cosine(reference: Wide, candidate: Wide) -> Wide:
    """Of each pair of rows; 1 where they are equal, be they zero."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(candidate, axis=1)
        cosine = np.minimum((reference * candidate).sum(axis=1) / norms, 1.0)
    return np.where((reference == candidate).all(axis=1), 1.0, np.where(norms == 0.0, 0.0, cosine))


def _divergence(reference: Wide, candidate: Wide) -> Wide:
    """sum p (log p - log q) of the softmax p, q of each pair of rows."""
    with np.errstate(invalid="ignore", over="ignore"):
        p, q = log_softmax(reference), log_softmax(candidate)
        return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    ratio = signal / noise  # 0 where the noise is infinite, NaN where there is NaN
    return 10.0 * math.log10(ratio) if ratio > 0.0 else -math.inf
