"""From raw times to the figures that are reported, with a warning where they should not be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rir_deploy.bench.latency import Samples
from rir_deploy.bench.options import PERCENTILES, PIPELINED, SYNCHRONOUS

PERCENTILE_METHOD = "nearest rank"
# Bounds of the warnings, as multiples or shares of the median.
MAX_TAIL = 2.0
MAX_QUARTILES = 0.10
MAX_DRIFT = 0.10
# Steps of the recorded distribution, from the fastest call to the slowest: every 2.5 %.
QUANTILES = 40


@dataclass(frozen=True)
class LatencyRecord:
    """The latency and throughput of one engine at one batch size, over the calls of all rounds; times in ms a call.

    Attributes:
        batch: images a call.
        runs: timed calls.
        std_ms: of a sample (n - 1); 0 for a single call.
        iqr_ms: from the 25th to the 75th percentile: what the middle half of the calls covers.
        percentiles_ms: by percentile, each a time that was seen (see `percentile_of`).
        quantiles_ms: the distribution: the fastest call, the percentiles at every 1 / `QUANTILES`, the slowest call.
        round_medians_ms: one a round.
        round_throughputs_per_s: one a round.
        throughput_per_s: images a second over the time of all rounds, with as many calls in flight as there were.
        streams: calls in flight; None for one synchronous call after another.
        warnings: what makes the figures doubtful, and what to do about it, a sentence each.
    """

    batch: int
    runs: int
    min_ms: float
    mean_ms: float
    median_ms: float
    max_ms: float
    std_ms: float
    iqr_ms: float
    percentiles_ms: dict[float, float]
    quantiles_ms: tuple[float, ...]
    round_medians_ms: tuple[float, ...]
    round_throughputs_per_s: tuple[float, ...]
    throughput_per_s: float
    streams: int | None
    warnings: tuple[str, ...]

    @property
    def mode(self) -> str:
        return SYNCHRONOUS if self.streams is None else PIPELINED

    @property
    def cost_ms(self) -> float:
        """What engines are compared by, in ms a call: the median of one call, or how often one ended when pipelined."""
        return self.median_ms if self.streams is None else 1000.0 * self.batch / max(self.throughput_per_s, 1e-6)

    def to_dict(self) -> dict[str, object]:
        latency = {
            "min": self.min_ms,
            "mean": self.mean_ms,
            "median": self.median_ms,
            **{f"p{percentile:g}": value for percentile, value in self.percentiles_ms.items()},
            "max": self.max_ms,
            "std": self.std_ms,
            "iqr": self.iqr_ms,
        }
        return {
            "latency_ms": latency,
            "cv": self.std_ms / max(self.mean_ms, 1e-6),
            "throughput_per_s": self.throughput_per_s,
            **({} if self.streams is None else {"streams": self.streams}),
            "runs": self.runs,
            "quantiles_ms": list(self.quantiles_ms),
            "round_medians_ms": list(self.round_medians_ms),
            "round_throughputs_per_s": list(self.round_throughputs_per_s),
            "warnings": list(self.warnings),
        }


def percentile_of(ordered: Sequence[float], percentile: float) -> float:
    """The nearest-rank percentile: the smallest of ``ordered`` (ascending) that ``percentile`` % do not exceed.

    It is always a time that was seen, and the largest one where there are too few to tell.
    """
    # Exact, because 99.9 / 100 * 1000 in floating point is more than 999 and would be the next rank.
    rank = math.ceil(Fraction(str(percentile)) * len(ordered) / 100)
    return ordered[max(rank, 1) - 1]


def summarize(
    rounds: Sequence[Samples], batch: int, percentiles: Sequence[float] = PERCENTILES, streams: int | None = None
) -> LatencyRecord:
    """One record of all rounds: the figures are over the calls of all of them together.

    Args:
        rounds: one or more, none empty.
        batch: images a call.
        percentiles: over 0 and under 100.
        streams: calls that were in flight; None for one after another.
    """
    times = sorted(ns / 1e6 for samples in rounds for ns in samples.times_ns)
    medians = tuple(statistics.median(samples.times_ns) / 1e6 for samples in rounds)
    rates = tuple(_per_second(batch * len(samples.times_ns), samples.elapsed_ns) for samples in rounds)
    return LatencyRecord(
        batch=batch,
        runs=len(times),
        min_ms=times[0],
        mean_ms=statistics.fmean(times),
        median_ms=statistics.median(times),
        max_ms=times[-1],
        std_ms=statistics.stdev(times) if len(times) > 1 else 0.0,
        iqr_ms=percentile_of(times, 75) - percentile_of(times, 25),
        percentiles_ms={percentile: percentile_of(times, percentile) for percentile in percentiles},
        quantiles_ms=tuple(percentile_of(times, 100 * step / QUANTILES) for step in range(QUANTILES + 1)),
        round_medians_ms=medians,
        round_throughputs_per_s=rates,
        throughput_per_s=_per_second(batch * len(times), sum(samples.elapsed_ns for samples in rounds)),
        streams=streams,
        warnings=tuple(_warnings(times, medians, percentiles) if streams is None else _drift(rates)),
    )


def _per_second(images: int, elapsed_ns: int) -> float:
    return images * 1e9 / max(elapsed_ns, 1)  # a clock may not see a very short call at all


def _warnings(times: Sequence[float], medians: Sequence[float], percentiles: Sequence[float]) -> list[str]:
    """Of synchronous calls; pipelined ones wait for each other, and are as wide spread as the load makes them."""
    warnings = []
    median = statistics.median(times)
    p99 = percentile_of(times, 99)
    if p99 > MAX_TAIL * median:
        warnings.append(f"wide spread: p99 is {p99 / max(median, 1e-6):.1f} times the median; stop what else runs")
    quartiles = percentile_of(times, 75) - percentile_of(times, 25)
    if quartiles > MAX_QUARTILES * median:
        warnings.append(
            f"wide spread: the middle half of the calls covers {quartiles / max(median, 1e-6):.0%} of the median; "
            "stop what else runs, or fix the clocks"
        )
    blind = [percentile for percentile in percentiles if len(times) * (100 - percentile) < 100]
    if blind:
        warnings.append(f"p{blind[0]:g} of {len(times)} calls is their maximum: time longer to tell them apart")
    return warnings + _drift(medians)


def _drift(of_rounds: Sequence[float]) -> list[str]:
    """Medians or throughputs of the rounds, whose contenders took turns: what changed between them is the machine."""
    drift = max(of_rounds) / max(min(of_rounds), 1e-6) - 1
    if drift <= MAX_DRIFT:
        return []
    return [f"the machine's speed drifted: the rounds differ by {drift:.0%}; let it settle and take more --rounds"]
