import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rir_deploy.errors import InputError
from rir_deploy.quantize.histogram import GrowingHistogram

BINS = 256
floats = st.floats(-(2.0**40), 2.0**40, allow_nan=False, width=32)
samples = st.lists(arrays(np.float32, st.integers(1, 30), elements=floats), min_size=1, max_size=5)


def filled(parts: list[np.ndarray]) -> GrowingHistogram:
    histogram = GrowingHistogram(BINS)
    for part in parts:
        histogram.add(part)
    return histogram


@given(samples)
def test_counts_do_not_depend_on_batches_or_order(parts: list[np.ndarray]) -> None:
    whole = filled([np.concatenate(parts)])
    assert np.array_equal(filled(parts).counts, whole.counts)
    assert np.array_equal(filled(parts[::-1]).counts, whole.counts)


@given(samples, st.floats(50.1, 100.0))
def test_percentile_is_the_exact_one_up_to_a_bin(parts: list[np.ndarray], percentile: float) -> None:
    values = np.abs(np.concatenate(parts).astype(np.float64))
    exact = np.sort(values)[max(0, int(np.ceil(values.size * (percentile / 100.0))) - 1)]
    found = filled(parts).percentile(percentile)
    if values.max() == 0.0:
        assert found == 0.0
    else:
        assert exact <= found <= exact + 2.0 * values.max() / BINS
        assert np.mean(values <= found) >= percentile / 100.0 - 1e-12


def test_counts_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    expected, _ = np.histogram(np.abs(values.astype(np.float64)), bins=BINS, range=(0.0, 4.0))
    assert 2.0 < np.abs(values).max() < 4.0
    assert np.array_equal(filled([values]).counts, expected)


def test_memory_does_not_grow() -> None:
    histogram = GrowingHistogram(BINS)
    for exponent in range(-100, 100):
        histogram.add(np.array([2.0**exponent]))
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == 200


def test_zeros_before_the_first_number_are_counted() -> None:
    histogram = filled([np.zeros(9), np.array([1.0])])
    assert histogram.counts[0] == 9
    assert histogram.percentile(90.0) == 2.0 / BINS  # numbers under 2 in 256 bins: the upper edge of the first


def test_integers_count_like_floats() -> None:
    assert np.array_equal(filled([np.array([-128, 5], dtype=np.int8)]).counts, filled([np.array([-128.0, 5.0])]).counts)


@pytest.mark.parametrize("bins", [0, 1, 3, 1000])
def test_bins_are_a_power_of_two(bins: int) -> None:
    with pytest.raises(InputError, match="power of two"):
        GrowingHistogram(bins)
