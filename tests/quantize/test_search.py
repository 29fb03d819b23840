"""The search for the layers that stay in float: as few as hold the budget, in few measurements."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.errors import GateError
from rir_deploy.quantize.search import LayerDamage, fewest_kept, rank, sqnr_db


def layers(count: int) -> list[LayerDamage]:
    return [LayerDamage(f"conv_{index}", (), float(index)) for index in range(count)]


class Counting:
    """Drops by how many are kept; counts the calls."""

    def __init__(self, drops: list[float]) -> None:
        self.drops, self.calls = drops, 0

    def __call__(self, nodes: tuple[str, ...]) -> float:
        self.calls += 1
        assert nodes == tuple(f"conv_{index}" for index in range(len(nodes))), "the worst first"
        return self.drops[len(nodes)]


falling = st.lists(st.floats(0, 0.1), min_size=2, max_size=70).map(lambda found: sorted(found, reverse=True))


@given(falling, st.floats(0, 0.1))
def test_it_is_the_fewest(drops: list[float], budget: float) -> None:
    """Against trying every number in turn."""
    count = len(drops)  # keeping all of them is no quantisation
    drop = Counting([*drops, 0.0])
    wanted = next((kept for kept in range(count) if drops[kept] <= budget), None)
    if wanted is None:
        with pytest.raises(GateError, match=f"with one layer of {count} in INT8 it is"):
            fewest_kept(layers(count), drop, budget)
    else:
        assert fewest_kept(layers(count), drop, budget) == wanted
    assert drop.calls <= 2 + math.ceil(math.log2(count))


@given(st.lists(st.floats(0, 0.1), min_size=2, max_size=70), st.floats(0, 0.1))
def test_where_the_drop_goes_up_and_down_the_budget_still_holds(drops: list[float], budget: float) -> None:
    drop = Counting([*drops, 0.0])
    try:
        kept = fewest_kept(layers(len(drops)), drop, budget)
    except GateError:
        assert drops[-1] > budget
    else:
        assert drops[kept] <= budget
    assert drop.calls <= 2 + math.ceil(math.log2(len(drops)))


def test_one_layer_is_all_or_nothing() -> None:
    assert fewest_kept(layers(1), Counting([0.01, 0.0]), 0.02) == 0
    with pytest.raises(GateError, match="stay with FP16"):
        fewest_kept(layers(1), Counting([0.01, 0.0]), 0.0)


@given(st.lists(st.one_of(st.none(), st.floats(-10, 90)), max_size=40))
def test_the_worst_comes_first_and_each_is_asked_once(damages: list[float | None]) -> None:
    asked = []

    def damage(node: str) -> float | None:
        asked.append(node)
        return damages[int(node)]

    ranking = rank([(str(index), (f"w{index}",)) for index in range(len(damages))], damage)
    assert asked == [str(index) for index in range(len(damages))]
    known = [one.sqnr_db for one in ranking if one.sqnr_db is not None]
    assert known == sorted(known)
    assert all(one.sqnr_db is None for one in ranking[len(known) :])  # what does nothing comes last
    assert {one.node: one.members for one in ranking} == {node: (f"w{node}",) for node in asked}


@pytest.mark.parametrize("noise", [math.nan, math.inf])
def test_what_is_no_number_is_the_worst_there_is(noise: float) -> None:
    worst = sqnr_db(1.0, noise)
    assert math.isfinite(worst)  # JSON has no infinity
    assert worst < sqnr_db(1.0, 1e300) < sqnr_db(1.0, 1.0) == 0.0 < sqnr_db(1.0, 0.0)
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
