"""What both sides predict, accumulated batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracy:
    """Fractions 0..1; the top-1 and top-5 are None where the data has no labels."""

    images: int
    agreement: float
    reference_top1: float | None
    candidate_top1: float | None
    reference_top5: float | None
    candidate_top5: float | None

    @property
    def top1_drop(self) -> float | None:
        """In points of 100: positive where the candidate is worse."""
        if self.reference_top1 is None or self.candidate_top1 is None:
            return None
        return 100.0 * (self.reference_top1 - self.candidate_top1)


class AccuracyComparison:
    """Feed it logits [n, classes] of both sides, then ask for `result`."""

    def __init__(self) -> None:
        self._images = self._agreed = 0
        self._labelled = True
        self._hits = {("reference", 1): 0, ("candidate", 1): 0, ("reference", 5): 0, ("candidate", 5): 0}

    def update(self, reference: Logits, candidate: Logits, labels: Labels | None) -> None:
        flat = {side: x.reshape(len(x), -1) for side, x in (("reference", reference), ("candidate", candidate))}
        best = {side: x.argmax(axis=1) for side, x in flat.items()}
        # argmax of a row with NaN is its first NaN: count such a row as no agreement at all.
        valid = np.isfinite(flat["candidate"]).all(axis=1)
        self._agreed += int(((best["reference"] == best["candidate"]) & valid).sum())
        self._images += len(reference)
        if labels is None:
            self._labelled = False
            return
        classes = flat["reference"].shape[1]
        if labels.max(initial=0) >= classes:
            raise InputError(
                f"the data has the label {labels.max()}, but the model has {classes} outputs; check data and recipe"
            )
        for side, k in self._hits:
            self._hits[(side, k)] += _hits(flat[side], labels, k)

    def result(self) -> Accuracy:
        n = max(self._images, 1)
        share = {key: hits / n if self._labelled else None for key, hits in self._hits.items()}
        return Accuracy(
            images=self._images,
            agreement=self._agreed / n,
            reference_top1=share[("reference", 1)],
            candidate_top1=share[("candidate", 1)],
            reference_top5=share[("reference", 5)],
            candidate_top5=share[("candidate", 5)],
        )


def _hits(logits: Logits, labels: Labels, k: int) -> int:
    """Rows whose label is among the k largest logits."""
    k = min(k, logits.shape[1])
    top = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    inside = (top == labels[:, None]).any(axis=1)
    return int((inside & np.isfinite(logits).all(axis=1)).sum())
