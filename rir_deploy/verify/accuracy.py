"""What both sides predict, accumulated batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.verify.flips import Flip, find_flips
from rir_deploy.verify.statistics import Pairs, count_pairs

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracy:
    """Fractions 0..1; the top-1 and top-5 and ``pairs`` are None where the data has no labels.

    ``flips`` are in the order of the images.
    """

    images: int
    agreement: float
    reference_top1: float | None
    candidate_top1: float | None
    reference_top5: float | None
    candidate_top5: float | None
    pairs: Pairs | None = None
    flips: tuple[Flip, ...] = ()

    @property
    def top1_drop(self) -> float | None:
        """In points of 100: positive where the candidate is worse."""
        return None if self.pairs is None else self.pairs.points


class AccuracyComparison:
    """Feed it logits [n, classes] of both sides, then ask for `result`."""

    def __init__(self) -> None:
        self._images = 0
        self._labelled = True
        self._flips: list[Flip] = []
        self._hits = {("reference", 1): 0, ("candidate", 1): 0, ("reference", 5): 0, ("candidate", 5): 0}
        self._lost = self._gained = 0

    def update(self, reference: Logits, candidate: Logits, labels: Labels | None) -> None:
        """Add a batch. InputError where a label is beyond the outputs."""
        flat = {side: x.reshape(len(x), -1) for side, x in (("reference", reference), ("candidate", candidate))}
        self._flips += find_flips(flat["reference"], flat["candidate"], labels, self._images)
        self._images += len(reference)
        if labels is None or not len(labels):
            self._labelled &= labels is not None
            return
        classes = flat["reference"].shape[1]
        if labels.max() >= classes:
            raise InputError(
                f"the data has the label {labels.max()}, but the model has {classes} outputs; check data and recipe"
            )
        for side, k in self._hits:
            self._hits[(side, k)] += int(_right(flat[side], labels, k).sum())
        pairs = count_pairs(*(_right(flat[side], labels, 1) for side in ("reference", "candidate")))
        self._lost, self._gained = self._lost + pairs.lost, self._gained + pairs.gained

    def result(self) -> Accuracy:
        n = max(self._images, 1)
        share = {key: hits / n if self._labelled else None for key, hits in self._hits.items()}
        return Accuracy(
            images=self._images,
            agreement=(self._images - len(self._flips)) / n,
            reference_top1=share[("reference", 1)],
            candidate_top1=share[("candidate", 1)],
            reference_top5=share[("reference", 5)],
            candidate_top5=share[("candidate", 5)],
            pairs=Pairs(self._lost, self._gained, self._images) if self._labelled and self._images else None,
            flips=tuple(self._flips),
        )


def _right(logits: Logits, labels: Labels, k: int) -> NDArray[np.bool_]:
    """Rows whose label is among the k largest logits; a row with NaN is never right."""
    k = min(k, logits.shape[1])
    # Of equal logits the first is the prediction, here as in `find_flips`.
    top = logits.argmax(axis=1)[:, None] if k == 1 else np.argpartition(-logits, k - 1, axis=1)[:, :k]
    return np.asarray((top == labels[:, None]).any(axis=1) & np.isfinite(logits).all(axis=1))
