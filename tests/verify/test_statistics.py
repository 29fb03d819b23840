"""The statistics of a drop against published values, exact enumeration and brute force."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from rir_deploy.errors import UsageError
from rir_deploy.verify.statistics import (
    LEVEL,
    Pairs,
    count_pairs,
    drop_interval,
    images_needed,
    judge_drop,
    mcnemar,
)

# (lost, gained, images), level, interval: Tango 1998; Agresti and Min 2005, Statistics in Medicine 24:729; Fagerland,
# Lydersen and Laake 2014; R's PropCIs (scoreci.mp).
PUBLISHED = [
    ((9, 3, 32), 0.95, (-0.027, 0.390)),
    ((0, 1, 44), 0.90, (-0.096, 0.037)),
    ((16, 8, 86), 0.95, (-0.020, 0.207)),
    ((1, 7, 21), 0.95, (-0.517, -0.026)),
    ((20, 60, 1000), 0.95, (-0.0584, -0.0231)),
    ((28, 25, 618), 0.90, (-0.0148, 0.0247)),
]


@pytest.mark.parametrize(("counts", "level", "interval"), PUBLISHED)
def test_intervals_are_the_published_ones(
    counts: tuple[int, int, int], level: float, interval: tuple[float, float]
) -> None:
    digits = 4 if counts[2] > 100 else 3
    assert tuple(round(bound, digits) for bound in drop_interval(Pairs(*counts), level)) == interval


@pytest.mark.parametrize("lost", range(1, 1000, 7))
def test_a_drop_of_as_many_points_as_the_bound_is_not_over_it(lost: int) -> None:
    """7 of 1,000 images are the 0.7 points of a bound, to the last bit."""
    assert Pairs(lost, 0, 1000).points == float(f"{lost // 10}.{lost % 10}")
    assert judge_drop(Pairs(lost + 2, 2, 1010), 1.0).drop == pytest.approx(100 * lost / 1010)


def test_mcnemar_is_the_published_one() -> None:
    """Fagerland, Lydersen and Laake 2013: 1 and 7 of 21 pairs, 6 and 16 of 161."""
    assert round(mcnemar(Pairs(1, 7, 21)), 4) == 0.0703
    assert round(mcnemar(Pairs(6, 16, 161)), 4) == 0.0525


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 9), (9, 0), (5, 5), (2, 40), (31, 17)])
def test_mcnemar_is_a_sum_over_all_splits(lost: int, gained: int) -> None:
    """All splits that are no likelier than the one seen, in exact arithmetic."""
    n = lost + gained
    likely = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    seen = likely[min(lost, gained)]
    pairs = Pairs(lost, gained, 100)
    assert math.isclose(mcnemar(pairs), float(sum(p for p in likely if p <= seen)), rel_tol=1e-9)


def test_mcnemar_of_many_images_neither_overflows_nor_vanishes() -> None:
    normal = math.erfc((145 - 1) / math.sqrt(20_145) / math.sqrt(2))  # with continuity
    assert math.isclose(mcnemar(Pairs(10_000, 10_145, 50_000)), normal, abs_tol=1e-4)
    assert mcnemar(Pairs(25_000, 25_000, 50_000)) == 1.0


def test_the_interval_is_what_a_likelihood_maximised_by_force_does_not_reject() -> None:
    """The score of a drop from its definition: the cells that are likeliest under it are searched on a grid."""
    pairs = Pairs(7, 2, 60)

    def score(drop: float) -> float:
        gained = np.linspace(max(0.0, -drop), (1 - drop) / 2, 400_001)[1:-1]
        lost, rest = gained + drop, 1 - drop - 2 * gained
        likelihood = pairs.lost * np.log(lost) + pairs.gained * np.log(gained) + 51 * np.log(rest)
        q = gained[likelihood.argmax()]
        return float((pairs.drop - drop) / math.sqrt((2 * q + drop - drop**2) / pairs.images))

    low, high = drop_interval(pairs)
    assert math.isclose(score(low), 1.959964, abs_tol=1e-3)
    assert math.isclose(score(high), -1.959964, abs_tol=1e-3)


@pytest.mark.parametrize("images", [12, 40])
def test_coverage_by_enumeration_of_all_outcomes(images: int) -> None:
    """Intervals of all tables of so many images, weighted by how likely each is: never far under 95 %."""
    outcomes = [(b, c) for b, c in product(range(images + 1), repeat=2) if b + c <= images]
    intervals = np.array([drop_interval(Pairs(b, c, images)) for b, c in outcomes])
    ways = np.array([math.comb(images, b) * math.comb(images - b, c) for b, c in outcomes], dtype=float)
    lost, gained = np.array(outcomes).T
    coverages = []
    for p, q in product((0.01, 0.03, 0.06, 0.1, 0.2), (0.005, 0.02, 0.05, 0.15)):
        likely = ways * p**lost * q**gained * (1 - p - q) ** (images - lost - gained)
        assert math.isclose(likely.sum(), 1.0)
        inside = (intervals[:, 0] <= p - q) & (p - q <= intervals[:, 1])
        coverages.append(likely[inside].sum())
    assert min(coverages) > 0.90
    assert 0.94 < np.mean(coverages) < 0.995


def test_no_lost_image_still_leaves_a_width() -> None:
    """Of n images without a difference, the bound is z^2 / (n + z^2): the score interval of a proportion of 0."""
    low, high = drop_interval(Pairs(0, 0, 5000))
    z2 = 1.9599639845**2
    assert math.isclose(high, z2 / (5000 + z2), rel_tol=1e-6)
    assert math.isclose(low, -high, rel_tol=1e-9)


def test_swapping_the_sides_mirrors_the_interval() -> None:
    low, high = drop_interval(Pairs(11, 4, 359))
    other = drop_interval(Pairs(4, 11, 359))
    assert np.allclose((low, high), (-other[1], -other[0]), atol=1e-12)


@pytest.mark.parametrize(
    ("pairs", "margin", "verdict"),
    [
        (Pairs(0, 0, 5000), 0.1, "non-inferior"),
        (Pairs(0, 0, 359), 0.1, "undecided"),  # too few to tell, though not one differs
        (Pairs(60, 20, 5000), 0.3, "inferior"),
        (Pairs(20, 60, 5000), 0.3, "non-inferior"),
        (Pairs(60, 20, 5000), 1.0, "undecided"),
    ],
)
def test_verdicts(pairs: Pairs, margin: float, verdict: str) -> None:
    found = judge_drop(pairs, margin)
    assert found.verdict == verdict
    assert (found.images_needed is not None) == (verdict == "undecided")
    assert found.low <= found.drop <= found.high


def test_more_images_help_only_a_drop_under_the_margin() -> None:
    assert images_needed(Pairs(20, 10, 1000), 0.01) is None
    needed = images_needed(Pairs(20, 10, 1000), 0.02)
    assert needed is not None
    assert needed > 1000


def test_so_many_images_decide_eight_times_in_ten() -> None:
    """Trials at the number that is asked for, drawn with the rates that were seen."""
    pairs, margin = Pairs(8, 4, 1000), 0.01
    needed = images_needed(pairs, margin)
    assert needed is not None
    draws = np.random.default_rng(0).multinomial(needed, [0.008, 0.004, 0.988], size=1500)[:, :2]
    tables, times = np.unique(draws, axis=0, return_counts=True)
    decided = [drop_interval(Pairs(int(b), int(c), needed))[1] < margin for b, c in tables]
    assert 0.76 < (times * decided).sum() / times.sum() < 0.86


def test_a_margin_holds_its_level_at_the_border() -> None:
    """With a true drop of just the margin, non-inferiority is found 1 time in 40."""
    draws = np.random.default_rng(1).multinomial(2000, [0.02, 0.01, 0.97], size=3000)[:, :2]
    tables, times = np.unique(draws, axis=0, return_counts=True)
    decided = [judge_drop(Pairs(int(b), int(c), 2000), 1.0).verdict == "non-inferior" for b, c in tables]
    assert (times * decided).sum() / times.sum() < 0.035
    assert LEVEL == 0.95


def test_pairs_are_counted() -> None:
    reference = np.array([True, True, False, False, True])
    candidate = np.array([True, False, True, False, False])
    assert count_pairs(reference, candidate) == Pairs(lost=2, gained=1, images=5)


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 3, 5), (-1, 0, 5)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        Pairs(*counts)


@pytest.mark.parametrize("margin", [-0.1, 100.1, math.nan])
def test_margins_are_checked(margin: float) -> None:
    with pytest.raises(UsageError, match="margin"):
        judge_drop(Pairs(0, 0, 5), margin)
