"""Which powers of two equalise the channels of an activation, so that it and the weights that read it round least.

One step serves all channels of an activation and one all columns of a row of weights: a factor that makes a channel
larger makes its column of weights smaller, and trades the rounding of one against that of the other. With e the
exponents, m and E the largest square and the energy of every channel, W a reader's weights, L the levels, the noise is

    max_c(4^e_c m_c) / L^2 * sum_c(4^-e_c |W_c|^2) + sum_rows max_c(4^-e_c max W_rc^2) / 127^2 * sum_c(4^e_c E_c)

The least is looked for by coordinate descent from several starts. Every term is a sum or a maximum over the channels:
a sweep keeps what the channels before and behind give together, and a trial costs one pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.quantize.table import MAX_EXPONENT

Floats = NDArray[np.float64]
Exponents = NDArray[np.int64]

_SWEEPS = 4
# How much of a channel's largest value enters its own step: 0 leaves it, 1 makes all channels equally large.
_STARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WEIGHT_LEVELS = 127
# What is less by rounding alone is not less.
_LESS = 1 - 1e-9


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one tensor over calibration, one number a channel: the largest |x| and the mean of x squared."""

    max_abs: Floats
    mean_square: Floats


@dataclass(frozen=True)
class Reading:
    """A product that reads the channels: squares of its weights [rows, channels], summed and at most, over the kernel.

    ``gain`` weighs a row's rounding noise by what it does to the output of the layer; 1 / (its output's energy).
    """

    square_sum: Floats
    square_max: Floats
    kernel: int
    gain: float


def choose_exponents(stats: ChannelStatistics, readings: list[Reading], levels: int) -> Exponents:
    """Powers of two that make the rounding noise of activation and weights together least; 0 for dead channels.

    Args:
        stats: of the tensor that is rounded to ``levels`` steps of its largest value.
        readings: of every product that reads it.
    """
    alive = stats.max_abs > 0
    for reading in readings:
        alive &= reading.square_sum.sum(axis=0) > 0
    if alive.sum() < 2:
        return np.zeros(len(alive), dtype=np.int64)
    reach = np.log2(np.where(alive, stats.max_abs, 1.0))
    reach = np.where(alive, reach[alive].max() - reach, 0.0)
    problem = _Problem(stats, readings, levels)
    best, least = np.zeros(len(alive), dtype=np.int64), np.inf
    for start in _STARTS:
        exponents = np.clip(np.rint(start * reach), -MAX_EXPONENT, MAX_EXPONENT).astype(np.int64)
        value = _descend(exponents, alive, problem)
        if value < least * _LESS:
            best, least = exponents, value
    return best


def noise(exponents: Exponents, stats: ChannelStatistics, readings: list[Reading], levels: int) -> float:
    """Expected square of the rounding noise in the readers' outputs, up to a constant factor.

    A step d rounds with an error of variance d^2 / 12; errors are taken as independent.
    """
    square = np.exp2(2.0 * exponents)
    activation = float((square * stats.max_abs**2).max()) / levels**2
    total = 0.0
    for reading in readings:
        from_activation = activation * (reading.square_sum / square).sum()
        steps = (reading.square_max / square).max(axis=1) / _WEIGHT_LEVELS**2
        from_weights = steps.sum() * reading.kernel * (square * stats.mean_square).sum()
        total += reading.gain * (from_activation + from_weights)
    return total


class _Problem:
    """All readings as one: rows that weigh by themselves, and a sum a channel."""

    def __init__(self, stats: ChannelStatistics, readings: list[Reading], levels: int) -> None:
        self.reach = stats.max_abs**2 / levels**2
        self.energy = stats.mean_square
        self.reads = np.sum([reading.gain * reading.square_sum.sum(axis=0) for reading in readings], axis=0)
        weighed = [reading.square_max * (reading.gain * reading.kernel / _WEIGHT_LEVELS**2) for reading in readings]
        self.rows = np.ascontiguousarray(np.concatenate(weighed).T)  # [channels, rows of all readings]


@dataclass
class _Part:
    """What some of the channels give: the largest step and energy of the activation, what is read, the rows' steps."""

    reach: float
    energy: float
    reads: float
    rows: Floats

    def with_channel(self, problem: _Problem, channel: int, exponent: int) -> _Part:
        square = 4.0**exponent
        return _Part(
            max(self.reach, float(problem.reach[channel]) * square),
            self.energy + float(problem.energy[channel]) * square,
            self.reads + float(problem.reads[channel]) / square,
            np.maximum(self.rows, problem.rows[channel] / square),
        )

    def with_part(self, other: _Part) -> _Part:
        rows = np.maximum(self.rows, other.rows)
        return _Part(max(self.reach, other.reach), self.energy + other.energy, self.reads + other.reads, rows)

    def noise(self) -> float:
        return self.reach * self.reads + float(self.rows.sum()) * self.energy


def _descend(exponents: Exponents, alive: NDArray[np.bool_], problem: _Problem) -> float:
    """Change ``exponents`` while that helps, and give the noise that is left."""
    least = np.inf
    for _ in range(_SWEEPS):
        before, least = least, _sweep(exponents, alive, problem)
        if not least < before * _LESS:
            break
    return least


def _sweep(exponents: Exponents, alive: NDArray[np.bool_], problem: _Problem) -> float:
    """Each channel in turn one step up or down, where that helps."""
    nothing = _Part(0.0, 0.0, 0.0, np.zeros(problem.rows.shape[1]))
    behind = [nothing]
    for channel in range(len(exponents) - 1, 0, -1):
        behind.append(behind[-1].with_channel(problem, channel, int(exponents[channel])))
    passed = nothing
    for channel in range(len(exponents)):
        others = passed.with_part(behind.pop())
        if alive[channel]:
            exponents[channel] = _better(others, problem, channel, int(exponents[channel]))
        passed = passed.with_channel(problem, channel, int(exponents[channel]))
    return passed.noise()


def _better(others: _Part, problem: _Problem, channel: int, exponent: int) -> int:
    now = others.with_channel(problem, channel, exponent).noise()
    for other in (exponent + 1, exponent - 1):
        if abs(other) <= MAX_EXPONENT and others.with_channel(problem, channel, other).noise() < now * _LESS:
            return other
    return exponent
