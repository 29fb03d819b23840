"""The figures, against definitions written down a second time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rir_deploy.bench.summary import percentile_of, summarize
from tests.bench.records import samples


@pytest.mark.parametrize(
    ("values", "percentile", "expected"),
    [
        # The worked examples of the nearest-rank method in Wikipedia's "Percentile".
        ([15, 20, 35, 40, 50], 5, 15),
        ([15, 20, 35, 40, 50], 30, 20),
        ([15, 20, 35, 40, 50], 40, 20),
        ([15, 20, 35, 40, 50], 50, 35),
        ([3, 6, 7, 8, 8, 10, 13, 15, 16, 20], 25, 7),
        ([3, 6, 7, 8, 8, 10, 13, 15, 16, 20], 75, 15),
        # 99.9 / 100 * 1000 in floating point is a little over 999.
        (range(1, 1001), 99.9, 999),
        (range(1, 101), 99, 99),
        (range(1, 11), 99, 10),
        ([4], 90, 4),
    ],
)
def test_percentiles_of_known_lists(values: list[float], percentile: float, expected: float) -> None:
    assert percentile_of(list(values), percentile) == expected


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300), st.sampled_from([1, 25, 50, 90, 95, 99, 99.9]))
def test_percentiles_are_those_of_numpy(values: list[int], percentile: float) -> None:
    expected = np.percentile(np.array(values), percentile, method="inverted_cdf")
    assert percentile_of(sorted(values), percentile) == expected


def test_a_record_of_two_rounds() -> None:
    record = summarize([samples(4, 2, 3, first_ms=30), samples(8, 1, 6)], batch=8)
    times = np.array([1, 2, 3, 4, 6, 8.0])
    assert record.runs == 6
    assert (record.min_ms, record.max_ms) == (1, 8)
    assert record.mean_ms == pytest.approx(times.mean())
    assert record.median_ms == pytest.approx(3.5)
    assert record.std_ms == pytest.approx(times.std(ddof=1))
    assert record.percentiles_ms == {90: 8, 95: 8, 99: 8}
    assert record.round_medians_ms == (3, 6)
    assert record.iqr_ms == 6 - 2
    assert record.round_throughputs_per_s == (pytest.approx(8 * 3 / 0.009), pytest.approx(8 * 3 / 0.015))
    assert (record.mode, record.cost_ms) == ("synchronous", record.median_ms)
    assert record.throughput_per_s == pytest.approx(8 * 6 / 0.024)


def test_the_plain_data_has_the_promised_keys() -> None:
    data = summarize([samples(*range(1, 201))], 2, (90, 95, 99, 99.9)).to_dict()
    assert data["latency_ms"] == {
        "min": 1,
        "mean": pytest.approx(100.5),
        "median": pytest.approx(100.5),
        "p90": 180,
        "p95": 190,
        "p99": 198,
        "p99.9": 200,
        "max": 200,
        "std": pytest.approx(np.arange(1, 201).std(ddof=1)),
        "iqr": 150 - 50,
    }
    assert data["cv"] == pytest.approx(np.arange(1, 201).std(ddof=1) / 100.5)
    assert "streams" not in data
    assert data["quantiles_ms"] == [1, *(5 * step for step in range(1, 41))]
    assert data["throughput_per_s"] == pytest.approx(2 * 1000 / 100.5)


def test_steady_calls_draw_no_warning() -> None:
    assert summarize([samples(*[5] * 100), samples(*[5.1] * 100)], 1).warnings == ()


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        ([samples(*[5] * 97, 11, 11, 11)], "p99 is 2.2 times the median"),
        ([samples(*[5] * 70, *[6] * 70)], "middle half of the calls covers 18% of the median"),
        ([samples(*[5] * 100), samples(*[6] * 10)], "rounds differ by 20%"),
        ([samples(*[5] * 60)], "p99 of 60 calls is their maximum"),
        ([samples(*[5] * 15)], "p95 of 15 calls is their maximum"),
    ],
)
def test_doubtful_figures_say_why(rounds: list[object], words: str) -> None:
    warnings = summarize(rounds, 1).warnings  # type: ignore[arg-type]
    assert len(warnings) == 1
    assert words in warnings[0]


def test_pipelined_throughput_is_over_the_time_that_passed() -> None:
    """Four requests of 8 images in flight, each 40 ms in the system, one done every 10 ms."""
    record = summarize([samples(*[40] * 100, elapsed_ms=1000), samples(*[40] * 100, elapsed_ms=1050)], 8, streams=4)
    assert record.throughput_per_s == pytest.approx(8 * 200 / 2.05)
    assert record.round_throughputs_per_s == (pytest.approx(800), pytest.approx(800 / 1.05))
    assert (record.mode, record.streams) == ("pipelined", 4)
    assert record.median_ms == 40
    assert record.cost_ms == pytest.approx(10.25)
    assert record.to_dict()["streams"] == 4
    assert record.warnings == ()


def test_pipelined_rounds_that_drift_are_named_and_a_wide_spread_is_the_loads_own() -> None:
    spread = [*[10] * 50, *[40] * 50]
    assert summarize([samples(*spread, elapsed_ms=1000)], 1, streams=4).warnings == ()
    drifting = [samples(*spread, elapsed_ms=1000), samples(*spread, elapsed_ms=1250)]
    (warning,) = summarize(drifting, 1, streams=4).warnings
    assert "rounds differ by 25%" in warning


def test_one_call_is_enough_for_figures() -> None:
    record = summarize([samples(3)], 1)
    assert (record.median_ms, record.std_ms, record.throughput_per_s) == (3, 0, pytest.approx(1000 / 3))
    assert summarize([samples(0)], 1).throughput_per_s > 0
