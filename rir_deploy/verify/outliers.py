"""Images that are wrong in another way than by rounding: two classes exchanged, flips that no noise explains.

Where two classes change places on a few images, agreement and top-1 hardly move. Rounding gives the scale: the error
that nine images of ten stay under, since dark or blank images may err much less than the others, and a step of INT8 at
least. Two kinds of image stand out against it.

1. *Exchanged*: two outputs have each other's values, and the other outputs their own.
2. *Unexplained flips*: a confident answer is turned round into another. Noise flips near ties, or leaves them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Of noise, so much lies under the quantile that it is measured by (of normal noise, at so many deviations).
_QUANTILE, _NORMAL = 0.9, 1.645
# An exchange has an error of so many times that quantile. A flip between confident answers has a margin of so many
# deviations of noise on either side: INT8's own, clipped images among them, take under 4 in all.
TIMES, CONFIDENT = 3.0, 4.0
# So many images of either kind, and such a share of all, are a fault and no accident.
FEWEST, SHARE = 3, 0.002
# How near exchanged outputs come to each other's values, as a share of their distance.
_NEAR = 0.25
# Noise is at least this share of the largest output, about a step of INT8: where most answers are equal, there is none
# to compare with.
_FLOOR = 0.01


@dataclass(frozen=True)
class Outliers:
    """How many of all images are ``exchanged`` or ``unexplained`` flips; ``classes`` are the two outputs that most of
    them concern, ``between`` how many do. Flips are a fault where most are between the same two of several classes:
    what an image loses where its values are clipped goes to any class.
    """

    of: int = 0
    exchanged: int = 0
    unexplained: int = 0
    classes: tuple[int, int] | None = None
    between: int = 0

    @property
    def is_fault(self) -> bool:
        concentrated = 2 * self.between > self.exchanged + self.unexplained
        return concentrated and self.between >= max(FEWEST, SHARE * self.of)

    def to_dict(self) -> dict[str, object]:
        classes = None if self.classes is None else list(self.classes)
        counts = {"exchanged": self.exchanged, "unexplained_flips": self.unexplained}
        return {**counts, "classes": classes, "between": self.between}


class OutlierSearch:
    """Feed it outputs [n, classes] of both sides, then ask for `outliers`."""

    def __init__(self) -> None:
        self._rows: list[Array] = []
        self._largest, self._outputs = 0.0, 0

    def update(self, reference: NDArray[np.floating], candidate: NDArray[np.floating]) -> None:
        """Add a batch; outputs that are no rows of two or more classes, or are not finite, are left out."""
        if reference.ndim != 2 or reference.shape[1] < 2 or not (np.isfinite(reference) & np.isfinite(candidate)).all():
            return
        self._outputs = reference.shape[1]
        left, right = reference.astype(np.float64), candidate.astype(np.float64)
        self._largest = max(self._largest, float(np.abs(left).max(initial=0.0)))
        self._rows.append(np.column_stack([*_exchanges(left, right), *_flips(left, right)]))

    def outliers(self) -> Outliers:
        """Those of all batches."""
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, 8))
        if not len(rows):
            return Outliers()
        size, first, noise, margin, instead = (rows[:, column] for column in (0, 1, 3, 4, 5))
        floor = _FLOOR * self._largest
        exchanged = (first >= 0) & (size > TIMES * max(float(np.quantile(size, _QUANTILE)), floor))
        deviation = max(float(np.quantile(noise, _QUANTILE)) / _NORMAL, floor)
        # Of two classes only, all flips are between the same: there is nothing to tell them by.
        unexplained = (np.minimum(margin, instead) > CONFIDENT * deviation) & (self._outputs > 2)
        pairs = np.concatenate([rows[exchanged][:, 1:3], rows[unexplained & ~exchanged][:, 6:8]]).astype(int)
        found = Counter((min(a, b), max(a, b)) for a, b in pairs.tolist())
        classes, between = found.most_common(1)[0] if found else (None, 0)
        return Outliers(len(rows), int(exchanged.sum()), int(unexplained.sum()), classes, between)


def _exchanges(reference: Array, candidate: Array) -> tuple[Array, Array, Array]:
    """Of each image the size of its error, the mean of the outputs taken off, and the two outputs that have each
    other's values, -1 where none do."""
    error = candidate - reference
    error -= error.mean(axis=1, keepdims=True)
    rows, order = np.arange(len(error)), np.argsort(-np.abs(error), axis=1)
    first, second = order[:, 0], order[:, 1]
    distance = np.abs(reference[rows, first] - reference[rows, second])
    near = np.abs(candidate[rows, first] - reference[rows, second]) <= _NEAR * distance
    near &= np.abs(candidate[rows, second] - reference[rows, first]) <= _NEAR * distance
    if error.shape[1] > 2:
        near &= np.abs(error[rows, order[:, 2]]) <= _NEAR * distance
    return np.linalg.norm(error, axis=1), np.where(near, first, -1), np.where(near, second, -1)


def _flips(reference: Array, candidate: Array) -> tuple[Array, ...]:
    """Of each image the error between the reference's two largest outputs, by how much each side prefers its own
    prediction to the other's (0 where they are the same), and both predictions."""
    rows, order = np.arange(len(reference)), np.argsort(-reference, axis=1)
    error = candidate - reference
    said, instead = order[:, 0], candidate.argmax(axis=1)
    noise = np.abs(error[rows, said] - error[rows, order[:, 1]])
    margin = reference[rows, said] - reference[rows, instead]
    turned = candidate[rows, instead] - candidate[rows, said]
    return noise, margin, turned, said.astype(np.float64), instead.astype(np.float64)
