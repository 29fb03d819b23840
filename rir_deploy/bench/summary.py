"""From raw times to the figures that are reported, with a warning where they should not be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rir_deploy.bench.latency import Samples
from rir_deploy.bench.options import PERCENTILES

PERCENTILE_METHOD = "nearest rank"
# Bounds of the warnings, as multiples or shares of the median.
MAX_TAIL = 2.0
MAX_QUARTILES = 0.10
MAX_DRIFT = 0.10


@dataclass(frozen=True)
class LatencyRecord:
    """The latency of one engine at one batch size, over the calls of all rounds; times in ms a call.

    Attributes:
        batch: images a call.
        runs: timed calls.
        std_ms: of a sample (n - 1); 0 for a single call.
        percentiles_ms: by percentile, each a time that was seen (see `percentile_of`).
        round_medians_ms: one a round.
        first_run_ms: the first call of the first process.
        throughput_per_s: images a second, one call after another: batch / mean.
        warnings: what makes the figures doubtful, for people.
    """

    batch: int
    runs: int
    min_ms: float
    mean_ms: float
    median_ms: float
    max_ms: float
    std_ms: float
    percentiles_ms: dict[float, float]
    round_medians_ms: tuple[float, ...]
    first_run_ms: float
    throughput_per_s: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        latency = {
            "min": self.min_ms,
            "mean": self.mean_ms,
            "median": self.median_ms,
            **{f"p{percentile:g}": value for percentile, value in self.percentiles_ms.items()},
            "max": self.max_ms,
            "std": self.std_ms,
        }
        return {
            "latency_ms": latency,
            "throughput_per_s": self.throughput_per_s,
            "runs": self.runs,
            "round_medians_ms": list(self.round_medians_ms),
            "first_run_ms": self.first_run_ms,
            "warnings": list(self.warnings),
        }


def percentile_of(ordered: Sequence[float], percentile: float) -> float:
    """The nearest-rank percentile: the smallest of ``ordered`` (ascending) that ``percentile`` % do not exceed.

    It is always a time that was seen, and the largest one where there are too few to tell.
    """
    # Exact, because 99.9 / 100 * 1000 in floating point is more than 999 and would be the next rank.
    rank = math.ceil(Fraction(str(percentile)) * len(ordered) / 100)
    return ordered[max(rank, 1) - 1]


def summarize(rounds: Sequence[Samples], batch: int, percentiles: Sequence[float] = PERCENTILES) -> LatencyRecord:
    """One record of all rounds: the figures are over the calls of all of them together.

    Args:
        rounds: one or more, none empty.
        batch: images a call.
        percentiles: over 0 and under 100.
    """
    times = sorted(ns / 1e6 for samples in rounds for ns in samples.times_ns)
    medians = tuple(statistics.median(samples.times_ns) / 1e6 for samples in rounds)
    mean = statistics.fmean(times)
    return LatencyRecord(
        batch=batch,
        runs=len(times),
        min_ms=times[0],
        mean_ms=mean,
        median_ms=statistics.median(times),
        max_ms=times[-1],
        std_ms=statistics.stdev(times) if len(times) > 1 else 0.0,
        percentiles_ms={percentile: percentile_of(times, percentile) for percentile in percentiles},
        round_medians_ms=medians,
        first_run_ms=rounds[0].first_ns / 1e6,
        throughput_per_s=1000.0 * batch / max(mean, 1e-6),  # a clock may not see a very short call at all
        warnings=tuple(_warnings(times, medians, percentiles)),
    )


def _warnings(times: Sequence[float], medians: Sequence[float], percentiles: Sequence[float]) -> list[str]:
    warnings = []
    median = statistics.median(times)
    p99 = percentile_of(times, 99)
    if p99 > MAX_TAIL * median:
        warnings.append(f"wide spread: p99 is {p99 / max(median, 1e-6):.1f} times the median")
    quartiles = percentile_of(times, 75) - percentile_of(times, 25)
    if quartiles > MAX_QUARTILES * median:
        warnings.append(
            f"wide spread: the middle half of the calls covers {quartiles / max(median, 1e-6):.0%} of the median"
        )
    drift = max(medians) - min(medians)
    if drift > MAX_DRIFT * min(medians):
        warnings.append(
            f"the machine's speed drifted: the rounds' medians differ by {drift / max(min(medians), 1e-6):.0%}"
        )
    blind = [percentile for percentile in percentiles if len(times) * (100 - percentile) < 100]
    if blind:
        warnings.append(f"p{blind[0]:g} of {len(times)} calls is their maximum: time longer to tell them apart")
    return warnings
