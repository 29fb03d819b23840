"""Thresholds held against the samples themselves, and against a plain loop."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rir_deploy.quantize.histogram import GrowingHistogram
from rir_deploy.quantize.moments import MomentObserver, ShiftObserver
from rir_deploy.quantize.ranges import Observations, RangeOptions, make_table
from rir_deploy.quantize.scales import asymmetric_uint8
from rir_deploy.quantize.statistics import ChannelObserver
from rir_deploy.quantize.table import METHODS, Method
from rir_deploy.quantize.thresholds import entropy_threshold, mse_threshold
from tests.quantize.graphs import SOURCES
from tests.quantize.test_layers import convolution, layer

Floats = NDArray[np.float64]

SAMPLES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: rng.standard_normal(20_000),
    "laplace": lambda rng: rng.laplace(size=20_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(20_000), 0),
    "uniform": lambda rng: rng.uniform(-1, 1, 20_000),
    "outlier": lambda rng: np.concatenate([rng.standard_normal(20_000), [40.0]]),
    "mostly zero": lambda rng: np.where(rng.random(20_000) < 0.99, 0.0, rng.exponential(size=20_000)),
    "two values": lambda rng: rng.choice([0.25, 1.0], 5000),
}


def counted(values: Floats, bins: int = 8192) -> tuple[NDArray[np.int64], float, float]:
    histogram = GrowingHistogram(bins)
    histogram.add(values)
    return histogram.counts, histogram.width, float(np.abs(values).max())


def squared_error(values: Floats, threshold: float, levels: int) -> float:
    """Of the samples: rounded to steps of the threshold, and saturated there."""
    step = threshold / levels
    return float(((np.minimum(np.round(np.abs(values) / step), levels) * step - np.abs(values)) ** 2).sum())


@pytest.mark.parametrize("levels", [127, 255])
@pytest.mark.parametrize("name", SAMPLES)
def test_squared_error_is_the_least_there_is(name: str, levels: int) -> None:
    values = SAMPLES[name](np.random.default_rng(2))
    threshold = mse_threshold(*counted(values), levels)
    largest = float(np.abs(values).max())
    least = min(squared_error(values, share * largest, levels) for share in np.linspace(0.05, 1.0, 400))
    found = squared_error(values, threshold, levels)
    assert found <= 1.05 * least + 1e-12
    if (name, levels) == ("outlier", 127):
        assert found < 0.9 * squared_error(values, largest, levels)


def plain_entropy(counts: NDArray[np.int64], width: float, largest: float, levels: int) -> float:
    """The histogram method of NVIDIA's talk, bin by bin."""
    factor = max(1, len(counts) // 2048)
    merged = [float(sum(counts[i : i + factor])) for i in range(0, len(counts), factor)]
    while len(merged) > 1 and merged[-1] == 0:
        merged.pop()
    merged[0] = 0.0
    bins, best, least = levels + 1, len(merged), math.inf
    for cut in [*range(bins, len(merged), 16), len(merged)]:
        inside = merged[:cut]
        divergence = 0.0
        if not any(inside) or cut <= bins:
            divergence = 0.0 if cut == len(merged) else math.inf
        else:
            actual = [*inside[:-1], inside[-1] + sum(merged[cut:])]
            expected = [0.0] * cut
            for level in range(bins):
                members = range(level * cut // bins, (level + 1) * cut // bins)
                full = [i for i in members if inside[i] > 0]
                for i in full:
                    expected[i] = sum(inside[j] for j in members) / len(full)
            p = [value / sum(actual) for value in actual]
            q = [value / sum(expected) for value in expected]
            if any(p[i] > 0 and q[i] == 0 for i in range(cut)):
                q = [max(value, 1e-10) for value in q]
            divergence = sum(p[i] * math.log(p[i] / q[i]) for i in range(cut) if p[i] > 0)
        if divergence < least * (1 - 1e-9) or (math.isinf(least) and divergence < math.inf):
            best, least = cut, divergence
    return min(best * factor * width, largest)


@pytest.mark.parametrize("levels", [127, 255])
@pytest.mark.parametrize("name", SAMPLES)
def test_entropy_is_that_of_a_plain_loop(name: str, levels: int) -> None:
    values = SAMPLES[name](np.random.default_rng(3))[:4000]
    counts, width, largest = counted(values, 1024)
    found = entropy_threshold(counts, width, largest, levels)
    assert np.isclose(found, plain_entropy(counts, width, largest, levels), rtol=1e-9)
    assert 0 < found <= largest


def test_entropy_cuts_an_outlier_off_and_keeps_what_is_even() -> None:
    rng = np.random.default_rng(3)
    assert entropy_threshold(*counted(np.concatenate([rng.standard_normal(20_000), [40.0]])), 127) < 12
    even = rng.uniform(-1, 1, 20_000)
    assert entropy_threshold(*counted(even), 127) > 0.98


# --- tables ---------------------------------------------------------------------------------------------------------


def observed(parts: list[Floats]) -> Observations:
    observations = Observations()
    for part in parts:
        observations.add("x", part, {"positive": np.maximum(part, 0), "shifted": np.abs(part) + 0.5})
    return observations


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_what_has_no_sign_is_rounded_to_twice_as_many_steps(
    method: Method, unsigned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(4).laplace(size=(5, 3000))
    search = mse_threshold if method == "mse" else entropy_threshold
    asked: dict[float, int] = {}

    def asking(counts: NDArray[np.int64], width: float, largest: float, levels: int) -> float:
        asked[largest] = levels
        return search(counts, width, largest, levels)

    monkeypatch.setattr(f"rir_deploy.quantize.ranges.{method}_threshold", asking)
    table = make_table(observed([values]), "x", SOURCES, RangeOptions(method, unsigned=unsigned))
    twice = 255 if unsigned else 127
    assert asked == {np.abs(values).max(): 127, values.max(): twice, np.abs(values).max() + 0.5: twice}
    assert (table["positive"].min, table["positive"].max) == (0.0, search(*counted(np.maximum(values, 0)), twice))
    signed = search(*counted(values), 127)
    assert (table["x"].min, table["x"].max) == (-min(signed, -values.min()), min(signed, values.max()))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 39), max_size=4), st.sampled_from(METHODS))
def test_batches_cut_otherwise_give_the_same_table(seed: int, cuts: list[int], method: Method) -> None:
    values = np.random.default_rng(seed).laplace(size=(40, 25))
    options = RangeOptions(method, unsigned=True)
    whole = make_table(observed([values]), "x", SOURCES, options)
    parts = [part for part in np.split(values, sorted(cuts)) if len(part)]
    assert make_table(observed(parts), "x", SOURCES, options).to_json() == whole.to_json()


def test_channels_are_those_of_all_the_data() -> None:
    data = [np.random.default_rng(i).standard_normal((4, 3, 5, 5)).astype(np.float32) for i in range(3)]
    observer = ChannelObserver()
    for batch in data:
        observer.add({"x": batch, "features": batch.mean(axis=(2, 3)), "scalar": np.float32(1.0)})
    whole = np.concatenate(data)
    found = observer.statistics()
    assert set(found) == {"x", "features"}
    assert np.array_equal(found["x"].max_abs, np.abs(whole).max(axis=(0, 2, 3)))
    assert np.allclose(found["x"].mean_square, (whole.astype(np.float64) ** 2).mean(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(found["features"].mean_square, (whole.mean(axis=(2, 3)) ** 2).mean(axis=0), rtol=1e-5)


def test_memory_does_not_grow_with_the_images() -> None:
    found = layer(convolution())
    observers = {
        "ranges": Observations(),
        "channels": ChannelObserver(),
        "moments": MomentObserver([found]),
        "shifts": ShiftObserver([found], {"x": asymmetric_uint8(-1, 1)}),
    }
    sizes = []
    rng = np.random.default_rng(0)
    for count in range(1, 13):
        batch = rng.standard_normal((4, 6, 9, 8)).astype(np.float32)
        observers["ranges"].add("x", batch, {"y": batch})  # type: ignore[attr-defined]
        for name in ("channels", "moments", "shifts"):
            observers[name].add({"x": batch})  # type: ignore[attr-defined]
        if count in (2, 12):
            state = {
                "ranges": observers["ranges"],
                **{name: observers[name]._sums for name in ("channels", "moments", "shifts")},  # type: ignore[attr-defined]
            }
            sizes.append({name: len(pickle.dumps(value)) for name, value in state.items()})
    assert all(sizes[1][name] <= sizes[0][name] + 64 for name in sizes[0])
