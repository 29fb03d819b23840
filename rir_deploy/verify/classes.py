"""Recall class by class: a loss that is small in all can be all of one class.

A class is judged by the images that it loses, since few images a class leave little else to say: were its true loss no
more than the bound on top-1 and what the other classes lose besides, so many would be lost by chance with the
probability ``p`` (binomial). It is taken times the number of classes (Bonferroni), since the worst of many is looked
at; the interval of each class is wider for the same reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.verify.statistics import LEVEL, Pairs, count_pairs, drop_interval

# Images that a class has to lose, whatever their share: fewer are near ties.
FEWEST_LOST = 3


@dataclass(frozen=True)
class ClassRecall:
    """One class of labelled images; recalls are fractions, the drop and its interval are in points of 100.

    Attributes:
        label: the class.
        low, high: the interval of the drop, at 95 % for all classes together.
        p: how likely so many lost images are where the class loses what it may, for all classes together.
    """

    label: int
    reference: float
    candidate: float
    pairs: Pairs
    low: float
    high: float
    p: float

    @property
    def drop(self) -> float:
        return self.pairs.points

    def is_lost(self, bound: float) -> bool:
        """Whether it lost more than ``bound`` points, and by no chance."""
        few = self.pairs.lost - self.pairs.gained < FEWEST_LOST
        return self.drop > bound and not few and self.p < 1.0 - LEVEL

    def to_dict(self) -> dict[str, object]:
        return {
            "label": self.label,
            "images": self.pairs.images,
            "reference": self.reference,
            "candidate": self.candidate,
            "lost": self.pairs.lost,
            "gained": self.pairs.gained,
            "drop": self.drop,
            "interval": [self.low, self.high],
            "p": self.p,
        }


def class_recalls(
    labels: NDArray[np.int64], reference: NDArray[np.bool_], candidate: NDArray[np.bool_], allowed: float
) -> tuple[ClassRecall, ...]:
    """The recall of every class that has images, in the order of the classes.

    Args:
        labels, reference, candidate: [n]: the class of each image, and whether either side has it right.
        allowed: the loss that a class may have besides what the others lose, in points.
    """
    present = np.unique(labels)
    level = 1.0 - (1.0 - LEVEL) / max(len(present), 1)
    whole = count_pairs(reference, candidate) if len(labels) else None
    found = []
    for label in present.tolist():
        mine = labels == label
        pairs = count_pairs(reference[mine], candidate[mine])
        assert whole is not None
        others = whole.images - pairs.images
        elsewhere = (whole.lost - pairs.lost) / others if others else 0.0
        p = upper_tail(pairs.lost, pairs.images, min(allowed / 100.0 + elsewhere, 1.0))
        low, high = (100.0 * bound for bound in drop_interval(pairs, level))
        left, right = float(reference[mine].mean()), float(candidate[mine].mean())
        found.append(ClassRecall(label, left, right, pairs, low, high, min(p * len(present), 1.0)))
    return tuple(found)


def worst_class(recalls: tuple[ClassRecall, ...]) -> ClassRecall | None:
    """The class that lost most points; None without labels."""
    return max(recalls, key=lambda one: one.drop, default=None)


def upper_tail(hits: int, trials: int, share: float) -> float:
    """The probability of ``hits`` or more in ``trials``, each with the probability ``share``."""
    if hits <= 0 or share >= 1.0:
        return 1.0
    if share <= 0.0:
        return 0.0
    return min(math.fsum(_binomial(k, trials, share) for k in range(hits, trials + 1)), 1.0)


def _binomial(k: int, n: int, share: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(share) + (n - k) * math.log1p(-share))
