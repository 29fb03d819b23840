import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rir_deploy.errors import InputError
from rir_deploy.quantize import Range, RangeTable, Sources
from rir_deploy.quantize.chosen_on import ChosenOn
from tests.quantize.graphs import SOURCES

TABLE = RangeTable({"b": Range(-0.1, 1 / 3), "a": Range(0.0, 2.0)}, "minmax", 512, SOURCES)
CHOSEN = ChosenOn.of("e" * 64, np.arange(9, dtype=np.uint64))
finite = st.floats(allow_nan=False, allow_infinity=False)
ranges = st.tuples(finite, finite).map(lambda pair: Range(min(pair), max(pair)))


@given(
    st.dictionaries(st.text(), ranges),
    st.integers(1, 10**6),
    st.dictionaries(st.text(min_size=1), st.text(min_size=1)),
    st.sampled_from([None, CHOSEN]),
)
@example({}, 1, {"n": "asked for by '[0  1]'", "m": "[", "o": "]"}, None)
def test_reads_back_exactly(found: dict[str, Range], samples: int, kept: dict[str, str], on: ChosenOn | None) -> None:
    table = RangeTable(found, "minmax", samples, SOURCES, exponents={"a": (1, -2)}, kept=kept, chosen_on=on)
    assert RangeTable.from_json(table.to_json()) == table


def test_equal_tables_give_equal_bytes() -> None:
    other = RangeTable({"a": Range(0, 2), "b": Range(-0.1, 1 / 3)}, "minmax", 512, SOURCES)
    assert other.to_json() == TABLE.to_json()
    assert '"b": [-0.1, 0.3333333333333333]' in TABLE.to_json()  # one line a tensor, to be read in a diff


def test_percentile_is_kept() -> None:
    table = dataclasses.replace(TABLE, method="percentile", percentile=99.9)
    assert RangeTable.from_json(table.to_json()).percentile == 99.9


def test_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TABLE.ranges["a"] = Range(0, 1)  # type: ignore[index]


def test_unknown_tensor() -> None:
    with pytest.raises(InputError, match=r"knows no tensor 'c'.*calibrate"):
        TABLE["c"]


def test_max_abs() -> None:
    assert TABLE.max_abs() == {"a": 2.0, "b": 1 / 3}
    assert Range(-3, 1).max_abs == 3


def test_check_accepts_its_sources() -> None:
    TABLE.check("a" * 64, "b" * 64)
    TABLE.check("a" * 64, "b" * 64, "c" * 64)


@pytest.mark.parametrize("what", ["model", "recipe", "data"])
def test_check_refuses_others(what: str) -> None:
    given_sha = {"model": "a" * 64, "recipe": "b" * 64, "data": "c" * 64, what: "d" * 64}
    with pytest.raises(InputError, match=f"made with another {what} .*dddddddddddd.*calibrate again") as caught:
        TABLE.check(given_sha["model"], given_sha["recipe"], given_sha["data"])
    assert caught.value.exit_code == 5


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(TABLE.to_json()), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        TABLE.to_json()[:-20],
        "[" * 100_000,
        edited(version=4),
        edited(version=2),
        edited(kept=[]),
        edited(kept=None),
        edited(kept={"conv": 1}),
        edited(kept={"conv": ""}),
        edited(kept={"": "why"}),
        edited(chosen_on=[]),
        edited(chosen_on={}),
        edited(chosen_on={**CHOSEN.to_dict(), "images": 1}),
        edited(chosen_on={**CHOSEN.to_dict(), "digests": "?"}),
        edited(extra=1),
        edited(method="mode"),
        edited(method=["minmax"]),
        edited(percentile=99.0),
        edited(method="percentile"),
        edited(method="percentile", percentile=20),
        edited(method="percentile", percentile="99"),
        edited(samples=0),
        edited(samples=True),
        edited(samples=1.5),
        edited(model_sha256="A" * 64),
        edited(data_sha256=None),
        edited(recipe_sha256="a" * 63),
        edited(exponents={"a": [0.5]}),
        edited(exponents={"a": [21]}),
        edited(exponents={"a": 1}),
        edited(weights_sha256="A" * 64),
        edited(weights_sha256=1),
        edited(ranges=[]),
        edited(ranges={"a": [0]}),
        edited(ranges={"a": [1, 0]}),
        edited(ranges={"a": [0, float("nan")]}),
        edited(ranges={"a": [0, float("inf")]}),
        edited(ranges={"a": [0, "1"]}),
        edited(ranges={"a": [False, True]}),
        edited(ranges={"a": {"min": 0, "max": 1}}),
        edited(ranges={"a": [0, 10**400]}),
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(InputError, match="range table is malformed"):
        RangeTable.from_json(text)


def test_sources_are_hashes() -> None:
    with pytest.raises(InputError, match="recipe_sha256 must be 64 hexadecimal digits"):
        Sources("a" * 64, "recipe", "c" * 64)
