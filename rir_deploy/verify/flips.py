"""The images that the two sides do not call the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Flip:
    """One image, by its place in the data.

    ``reference`` and ``candidate`` are the classes predicted; a margin is how far the prediction's logit is over the
    next one, so that a flip between near ties can be told from one that is not. The candidate's are None where it
    answered with numbers that are not finite.
    """

    image: int
    label: int | None
    reference: int
    candidate: int | None
    reference_margin: float
    candidate_margin: float | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def find_flips(reference: Logits, candidate: Logits, labels: Labels | None, start: int) -> list[Flip]:
    """The flips of one batch of logits [n, classes], whose first image has the place ``start``."""
    finite = np.asarray(np.isfinite(candidate).all(axis=1))
    best = reference.argmax(axis=1), candidate.argmax(axis=1)
    rows = np.flatnonzero((best[0] != best[1]) | ~finite)
    margins = _margins(reference[rows]), _margins(candidate[rows])
    return [
        Flip(
            image=start + int(row),
            label=None if labels is None else int(labels[row]),
            reference=int(best[0][row]),
            candidate=int(best[1][row]) if finite[row] else None,
            reference_margin=float(margins[0][i]),
            candidate_margin=float(margins[1][i]) if finite[row] else None,
        )
        for i, row in enumerate(rows)
    ]


def _margins(logits: Logits) -> Logits:
    """Largest minus second largest of every row; 0 where there is but one class."""
    if logits.shape[1] < 2:
        return np.zeros(len(logits))
    top = np.partition(logits.astype(np.float64), -2, axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(top[:, -1] - top[:, -2])
