"""The record of the images that layers were chosen on: what it finds again, and what it refuses to be read from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.errors import InputError
from rir_deploy.quantize.chosen_on import CHOSEN_ON_KEY, MOST, ChosenOn, read_chosen_on, write_chosen_on
from tests.quantize.graphs import chain

SHA256 = "e" * 64
digests = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50)


@given(digests, digests)
def test_common_images_are_those_of_both(first: list[int], second: list[int]) -> None:
    found = ChosenOn.of(SHA256, np.array(first, dtype=np.uint64))
    assert ChosenOn.from_dict(found.to_dict()) == found
    assert found.images == len(first)
    others = [*second, first[-1]]
    positions = found.among(np.array(others, dtype=np.uint64))
    assert positions.tolist() == [index for index, digest in enumerate(others) if digest in first]


def test_of_very_many_images_a_fair_sample_is_recorded() -> None:
    many = np.random.default_rng(0).integers(0, 2**64, 4 * MOST, dtype=np.uint64)
    found = ChosenOn.of(SHA256, many)
    assert found.is_sample
    assert len(found.digests) == 8 * MOST
    # Of 4,000 common images a quarter is found, within five deviations.
    assert abs(len(found.among(many[:4000])) - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert len(found.among(many)) == MOST


def test_it_goes_with_the_model() -> None:
    model, found = chain(), ChosenOn.of(SHA256, np.arange(9, dtype=np.uint64))
    assert read_chosen_on(model) is None
    write_chosen_on(model, found)
    assert read_chosen_on(model) == found


DATA = ChosenOn.of(SHA256, np.arange(3, dtype=np.uint64)).to_dict()


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {**DATA, "extra": 1},
        {**DATA, "sha256": "E" * 64},
        {**DATA, "sha256": None},
        {**DATA, "images": 2},
        {**DATA, "images": True},
        {**DATA, "images": 3.0},
        {**DATA, "digests": ""},
        {**DATA, "digests": 3},
        {**DATA, "digests": "?" * 32},
        {**DATA, "digests": "AAAA"},
        {**DATA, "digests": "\u00e9" * 32},
        {**DATA, "digests": str(DATA["digests"]) + "\n"},
        {**DATA, "digests": "A" * 32},  # three times the same
    ],
)
def test_anything_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ChosenOn.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "3", "[" * 100_000, "{}"])
def test_a_record_that_was_tampered_with_is_refused(text: str) -> None:
    model = chain()
    model.metadata_props[CHOSEN_ON_KEY] = text
    with pytest.raises(InputError, match=r"malformed .*quantise again"):
        read_chosen_on(model)
