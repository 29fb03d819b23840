"""Whether a loss of top-1 is real: statistics of two sides that were asked about the same images.

Only the images that one side alone has right say anything about a difference: the *lost* ones (right in the reference,
wrong in the candidate) and the *gained* ones. drop = (lost - gained) / images.

Interval and verdict come from one test, Tango's score test for paired proportions (Tango 1998, Statistics in Medicine
17:891). Its variance is taken at the drop that is being tested, so that it holds its level with few images and with
no lost image at all, where the usual estimate has no width (Fagerland, Lydersen, Laake 2014, Statistics in Medicine
33:2850).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import UsageError

LEVEL, POWER = 0.95, 0.8
Verdict = Literal["non-inferior", "inferior", "undecided", "cannot be judged"]
# Halvings of an interval of length 2 that leave nothing of a float.
_HALVINGS = 64


@dataclass(frozen=True)
class Pairs:
    """``lost`` and ``gained`` of ``images`` that both sides answered.

    Raises:
        UsageError: there are no images, or more lost and gained ones than images.
    """

    lost: int
    gained: int
    images: int

    def __post_init__(self) -> None:
        if min(self.lost, self.gained) < 0 or not max(1, self.lost + self.gained) <= self.images:
            raise UsageError(f"{self.lost} lost and {self.gained} gained of {self.images} images cannot be")

    @property
    def drop(self) -> float:
        """The drop of top-1 as a fraction, positive where the candidate is worse."""
        return (self.lost - self.gained) / self.images

    @property
    def points(self) -> float:
        """The same in points of 100. Divided last: a drop of 0.7 points is the 0.7 of a bound, and not over it."""
        return 100.0 * (self.lost - self.gained) / self.images


@dataclass(frozen=True)
class DropTest:
    """The drop of top-1 with what can be said of it; drops and the margin are in points of 100.

    Attributes:
        low, high: the 95 % interval of the drop.
        mcnemar_p: two-sided, exact: how likely so uneven a split of lost and gained is between equal sides.
        verdict: "non-inferior" where the whole interval is under the margin, "inferior" where all of it is over,
            "cannot be judged" where the images prove nothing, whatever the interval.
        images_needed: so many would decide in favour of the candidate in 80 of 100 trials if both sides go on as
            here; None where it is decided, or where no number would do.
    """

    pairs: Pairs
    drop: float
    low: float
    high: float
    mcnemar_p: float
    margin: float
    verdict: Verdict
    images_needed: int | None

    def to_dict(self) -> dict[str, object]:
        return {
            "lost": self.pairs.lost,
            "gained": self.pairs.gained,
            "interval": [self.low, self.high],
            "level": LEVEL,
            "mcnemar_p": self.mcnemar_p,
            "margin": self.margin,
            "verdict": self.verdict,
            "images_needed": self.images_needed,
        }


def count_pairs(reference_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_]) -> Pairs:
    """From whether each image [n] was answered rightly by either side."""
    lost, gained = reference_right & ~candidate_right, candidate_right & ~reference_right
    return Pairs(int(lost.sum()), int(gained.sum()), len(reference_right))


def judge_drop(pairs: Pairs, margin: float, *, proving: bool = True) -> DropTest:
    """Judge a drop of top-1 against the largest that would do, ``margin`` in points; ``proving`` whether the images can
    prove anything.

    Raises:
        UsageError: the margin is not 0 to 100 points.
    """
    if not 0.0 <= margin <= 100.0:
        raise UsageError(f"the margin must be 0 to 100 points, not {margin}")
    low, high = (100.0 * bound for bound in drop_interval(pairs))
    verdict: Verdict = "non-inferior" if high < margin else "inferior" if low > margin else "undecided"
    verdict = verdict if proving else "cannot be judged"
    needed = images_needed(pairs, margin / 100.0) if verdict == "undecided" else None
    return DropTest(pairs, pairs.points, low, high, mcnemar(pairs), margin, verdict, needed)


def drop_interval(pairs: Pairs, level: float = LEVEL) -> tuple[float, float]:
    """Tango's score interval of the drop, as fractions: all drops that his test does not reject."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return _solve(pairs, z, -1.0, pairs.drop), _solve(pairs, -z, pairs.drop, 1.0)


def mcnemar(pairs: Pairs) -> float:
    """Two-sided p of McNemar's test by the binomial distribution itself."""
    discordant, fewer = pairs.lost + pairs.gained, min(pairs.lost, pairs.gained)
    if discordant == 0:
        return 1.0
    # Where both are equal, the two tails meet in the middle and are over 1 together.
    return min(1.0, 2.0 * math.fsum(_half_binomial(k, discordant) for k in range(fewer + 1)))


def images_needed(pairs: Pairs, margin: float, power: float = POWER) -> int | None:
    """Images with which the test would find the candidate non-inferior with probability ``power``.

    Supposes that lost and gained stay as frequent as they are here (Nam 1997, Biometrics 53:1422). None where the
    drop is the ``margin`` (a fraction) or more: more images would only make that surer.
    """
    room = margin - pairs.drop
    if room <= 0.0:
        return None
    z_level, z_power = NormalDist().inv_cdf(0.5 + LEVEL / 2), NormalDist().inv_cdf(power)
    discordance = (pairs.lost + pairs.gained) / pairs.images
    # The variance of one image's difference: at the margin, as the test supposes, and as it is.
    tested, real = _variance(pairs, margin), max(discordance - pairs.drop**2, 0.0)
    return math.ceil(((z_level * math.sqrt(tested) + z_power * math.sqrt(real)) / room) ** 2)


def _solve(pairs: Pairs, z: float, low: float, high: float) -> float:
    """The drop between two bounds at which the score is ``z``; the score falls as the drop that is tested grows."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(pairs, middle) > z else (low, middle)
    return (low + high) / 2


def _score(pairs: Pairs, drop: float) -> float:
    """Tango's statistic of the hypothesis that ``drop`` is the true one."""
    distance, variance = pairs.drop - drop, _variance(pairs, drop)
    if variance <= 0.0:  # the hypothesis leaves nothing to chance
        return 0.0 if distance == 0.0 else math.copysign(math.inf, distance)
    return distance * math.sqrt(pairs.images / variance)


def _variance(pairs: Pairs, drop: float) -> float:
    """Of one image's difference, were ``drop`` the true one: 2 q + drop - drop^2.

    q is the likeliest probability of a gained image under that hypothesis, the larger root of
    2 q^2 + b q - gained drop (1 - drop) = 0, with b = (2 - lost + gained) drop - lost - gained and the counts as
    shares of the images.
    """
    lost, gained = pairs.lost / pairs.images, pairs.gained / pairs.images
    b, c = (2.0 - lost + gained) * drop - lost - gained, -gained * drop * (1.0 - drop)
    root = math.sqrt(max(b * b - 8.0 * c, 0.0))
    # Where b is positive, root - b cancels; the product of the roots is c / 2.
    gained_then = (root - b) / 4.0 if b <= 0.0 else -2.0 * c / (root + b)
    return 2.0 * max(gained_then, -drop, 0.0) + drop * (1.0 - drop)


def _half_binomial(k: int, n: int) -> float:
    """The probability of k heads in n throws of a coin."""
    logarithm = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0)
    return math.exp(logarithm)
