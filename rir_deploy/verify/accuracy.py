"""What both sides predict, accumulated batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.verify.classes import ClassRecall, class_recalls
from rir_deploy.verify.evidence import Answered
from rir_deploy.verify.flips import Flip, find_flips
from rir_deploy.verify.statistics import Pairs, count_pairs

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """Fractions 0..1; the top-1 and top-5, ``pairs`` and ``top1_drop`` are None where the data has no labels.

    Shares are of all images. What is tested, ``pairs``, counts each of the ``distinct`` images once, since a repeated
    one says nothing new. ``top1_drop`` is in points of 100, positive where the candidate is worse; ``flips`` are in the
    order of the images.
    """

    images: int
    agreement: float
    reference_top1: float | None
    candidate_top1: float | None
    reference_top5: float | None
    candidate_top5: float | None
    pairs: Pairs | None = None
    flips: tuple[Flip, ...] = ()
    distinct: int = 0
    top1_drop: float | None = None


class AccuracyComparison:
    """Feed it logits [n, classes] of both sides, then ask for `result`."""

    def __init__(self) -> None:
        self._images = 0
        self._labelled = True
        self._flips: list[Flip] = []
        self._hits = {("reference", 1): 0, ("candidate", 1): 0, ("reference", 5): 0, ("candidate", 5): 0}
        # Of the distinct images: the class said by the reference, the label, and whether either side is right.
        self._said: list[Labels] = []
        self._labels: list[Labels] = []
        self._right: dict[str, list[Flags]] = {"reference": [], "candidate": []}
        self._outputs = 0

    def update(self, reference: Logits, candidate: Logits, labels: Labels | None, fresh: Flags | None = None) -> None:
        """Add a batch; ``fresh`` says which of its images were not there before, by default all.

        Raises:
            InputError: a label is beyond the outputs.
        """
        flat = {side: x.reshape(len(x), -1) for side, x in (("reference", reference), ("candidate", candidate))}
        self._flips += find_flips(flat["reference"], flat["candidate"], labels, self._images)
        self._images += len(reference)
        new = np.ones(len(reference), dtype=np.bool_) if fresh is None else fresh
        self._outputs = flat["reference"].shape[1]
        self._said.append(flat["reference"].argmax(axis=1)[new])
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
        self._labels.append(labels[new])
        for side, rows in flat.items():
            self._right[side].append(_right(rows, labels, 1)[new])

    def result(self) -> Accuracy:
        n = max(self._images, 1)
        labelled = self._labelled and self._images > 0
        said = _joined(self._said, np.int64)
        sides = [_joined(self._right[side], np.bool_) for side in ("reference", "candidate")]
        drop = self._hits[("reference", 1)] - self._hits[("candidate", 1)]
        share = {key: hits / n if self._labelled else None for key, hits in self._hits.items()}
        return Accuracy(
            images=self._images,
            agreement=(self._images - len(self._flips)) / n,
            reference_top1=share[("reference", 1)],
            candidate_top1=share[("candidate", 1)],
            reference_top5=share[("reference", 5)],
            candidate_top5=share[("candidate", 5)],
            pairs=count_pairs(sides[0], sides[1]) if labelled else None,
            flips=tuple(self._flips),
            distinct=len(said),
            top1_drop=100.0 * drop / n if labelled else None,
        )

    def answered(self) -> Answered:
        """What the reference made of the distinct images."""
        labels = _joined(self._labels, np.int64) if self._labelled else None
        said = _joined(self._said, np.int64)
        right = int(_joined(self._right["reference"], np.bool_).sum())
        counts = None if labels is None or not len(labels) else np.bincount(labels)
        return Answered(self._images, len(said), self._outputs, counts, np.bincount(said, minlength=1), right)

    def recalls(self, allowed: float) -> tuple[ClassRecall, ...]:
        """Class by class, on the distinct images (see `class_recalls`); none without labels."""
        if not self._labelled:
            return ()
        sides = [_joined(self._right[side], np.bool_) for side in ("reference", "candidate")]
        return class_recalls(_joined(self._labels, np.int64), sides[0], sides[1], allowed)


def _joined(parts: list[Any], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def _right(logits: Logits, labels: Labels, k: int) -> NDArray[np.bool_]:
    """Rows whose label is among the k largest logits; a row with NaN is never right."""
    k = min(k, logits.shape[1])
    # Of equal logits the first is the prediction, here as in `find_flips`.
    top = logits.argmax(axis=1)[:, None] if k == 1 else np.argpartition(-logits, k - 1, axis=1)[:, :k]
    return np.asarray((top == labels[:, None]).any(axis=1) & np.isfinite(logits).all(axis=1))
