"""Which powers of two are chosen, held against the noise computed directly and against trying them all."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rir_deploy.quantize import exponents as module
from rir_deploy.quantize.exponents import ChannelStatistics, Reading, choose_exponents, noise

SETTINGS = settings(max_examples=40, deadline=None)


def problem(seed: int, channels: int, rows: int = 5, readers: int = 2) -> tuple[ChannelStatistics, list[Reading]]:
    rng = np.random.default_rng(seed)
    readings = []
    for _ in range(readers):
        squares = (rng.standard_normal((rows, channels, 4)) * np.exp(rng.standard_normal((1, channels, 1)))) ** 2
        readings.append(Reading(squares.sum(2), squares.max(2), 4, float(rng.uniform(0.1, 2))))
    largest = np.exp(1.5 * rng.standard_normal(channels))
    return ChannelStatistics(largest, largest**2 * rng.uniform(0.02, 0.5, channels)), readings


def by_hand(e: np.ndarray, stats: ChannelStatistics, readings: list[Reading], levels: int) -> float:
    """Every product, channel and row by itself: step^2 of the one times the square of the other."""
    step = max(2.0 ** e[c] * stats.max_abs[c] for c in range(len(e))) / levels
    energy = sum(4.0 ** e[c] * stats.mean_square[c] for c in range(len(e)))
    total = 0.0
    for reading in readings:
        for row in range(len(reading.square_sum)):
            total += reading.gain * step**2 * sum(reading.square_sum[row, c] / 4.0 ** e[c] for c in range(len(e)))
            largest = max(reading.square_max[row, c] / 4.0 ** e[c] for c in range(len(e)))
            total += reading.gain * largest / 127**2 * reading.kernel * energy
    return total


@SETTINGS
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 3))
def test_the_noise_of_a_sweep_is_the_direct_one(seed: int, channels: int, readers: int) -> None:
    stats, readings = problem(seed, channels, readers=readers)
    rng = np.random.default_rng(seed)
    exponents = rng.integers(-4, 5, channels)
    before = noise(exponents, stats, readings, 127)
    assert np.isclose(before, by_hand(exponents, stats, readings, 127), rtol=1e-12)
    alive = rng.random(channels) < 0.8
    moved = exponents.copy()
    left = module._sweep(moved, alive, module._Problem(stats, readings, 127))
    assert np.isclose(left, noise(moved, stats, readings, 127), rtol=1e-12)
    assert left <= before * (1 + 1e-12)
    assert np.array_equal(moved[~alive], exponents[~alive])
    assert np.abs(moved - exponents).max() <= 1


@SETTINGS
@given(st.integers(0, 10**6))
def test_no_single_step_helps_any_more_and_the_best_is_near(seed: int) -> None:
    stats, readings = problem(seed, 4)
    found = choose_exponents(stats, readings, 255)
    least = noise(found, stats, readings, 255)
    for channel, step in itertools.product(range(4), (1, -1)):
        other = found.copy()
        other[channel] += step
        assert noise(other, stats, readings, 255) >= least * (1 - 1e-8)
    everything = itertools.product(range(-3, 4), repeat=3)  # the fourth stays: only differences matter
    best = min(noise(np.array([0, *rest]), stats, readings, 255) for rest in everything)
    assert least <= best * 1.05


def test_it_pays_where_channels_differ() -> None:
    stats, readings = problem(3, 32)
    found = choose_exponents(stats, readings, 127)
    assert noise(found, stats, readings, 127) < 0.5 * noise(np.zeros(32, dtype=np.int64), stats, readings, 127)


def test_dead_and_unread_channels_stay() -> None:
    stats, readings = problem(5, 6)
    stats.max_abs[1] = stats.mean_square[1] = 0.0
    readings[1].square_sum[:, 4] = readings[1].square_max[:, 4] = 0.0
    found = choose_exponents(stats, readings, 127)
    assert found[1] == found[4] == 0
    assert found.any()
    stats.max_abs[[0, 2, 3]] = 0.0  # one channel that is alive has nothing to be balanced with
    assert not choose_exponents(stats, readings, 127).any()


@pytest.mark.parametrize("wide", [1e-30, 1e30])
def test_factors_stay_within_their_limit(wide: float) -> None:
    stats, readings = problem(7, 3)
    stats.max_abs[0] *= wide
    stats.mean_square[0] *= wide**2
    assert np.abs(choose_exponents(stats, readings, 127)).max() <= module.MAX_EXPONENT


def test_work_grows_with_the_weights_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial, of which there are thousands, looks at one number a row and not at all weights again."""
    touched = 0
    plain = module._Part.with_channel

    def counting(self, *args):  # type: ignore[no-untyped-def]
        nonlocal touched
        touched += self.rows.size
        return plain(self, *args)

    monkeypatch.setattr(module._Part, "with_channel", counting)
    work = {}
    for channels in (24, 48):
        touched = 0
        stats, readings = problem(1, channels, rows=channels)
        choose_exponents(stats, readings, 127)
        work[channels] = touched / channels**2
    assert work[48] < 1.3 * work[24]
