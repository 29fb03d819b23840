"""Timing, on a clock that only the test moves."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable

import pytest

from rir_deploy.bench import latency
from rir_deploy.bench.latency import time_callable
from rir_deploy.bench.options import BenchOptions
from rir_deploy.errors import UsageError

MS = 1_000_000


class Clock:
    """A clock in ns, and a callable that takes the given times in turn, then the last one for ever."""

    def __init__(self, *times_ms: float) -> None:
        self.now, self.calls, self.times_ms = 0, 0, times_ms

    def __call__(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += round(self.times_ms[min(self.calls, len(self.times_ms) - 1)] * MS)
        self.calls += 1


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def make(*times_ms: float) -> Clock:
        clock = Clock(*times_ms)
        monkeypatch.setattr(latency, "perf_counter_ns", clock)
        return clock

    return make


def test_a_slow_first_call_is_kept_apart_and_every_later_one_is_seen(clocked: Callable[..., Clock]) -> None:
    clock = clocked(50, 7, 6, 5, 4, 3)
    samples = time_callable(clock.run, BenchOptions(warmup_ms=0, warmup_iterations=2, duration_s=0, iterations=4))
    assert samples.first_ns == 50 * MS
    assert samples.warmup_runs == 2
    assert samples.times_ns == (6 * MS, 5 * MS, 4 * MS, 3 * MS)
    assert samples.elapsed_ns == 18 * MS


@pytest.mark.parametrize(
    ("options", "warmup_runs", "timed"),
    [
        # 10 ms a call: time asks for more calls than the count does, and the other way round.
        (BenchOptions(warmup_ms=200, warmup_iterations=3, duration_s=1, iterations=10), 20, 100),
        (BenchOptions(warmup_ms=15, warmup_iterations=30, duration_s=0.05, iterations=8), 30, 8),
        (BenchOptions(warmup_ms=15, warmup_iterations=1, duration_s=0.095, iterations=1), 2, 10),
    ],
)
def test_both_bounds_hold(options: BenchOptions, warmup_runs: int, timed: int, clocked: Callable[..., Clock]) -> None:
    samples = time_callable(clocked(10).run, options)
    assert (samples.warmup_runs, len(samples.times_ns)) == (warmup_runs, timed)


def test_the_collector_is_off_while_timing_and_back_on_after(clocked: Callable[..., Clock]) -> None:
    seen = []
    options = BenchOptions(warmup_ms=0, duration_s=0, iterations=2)
    clocked(1)
    time_callable(lambda: seen.append(gc.isenabled()), options)
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        time_callable(lambda: 1 // 0, options)
    assert gc.isenabled()


def test_a_real_sleep_is_not_under_its_length() -> None:
    import time

    samples = time_callable(lambda: time.sleep(0.002), BenchOptions(warmup_ms=0, duration_s=0, iterations=5))
    assert min(samples.times_ns) >= 2 * MS


def test_rounds_share_time_and_calls() -> None:
    share = BenchOptions(duration_s=3, iterations=10, rounds=4).of_one_round()
    assert (share.duration_s, share.iterations, share.rounds) == (0.75, 3, 1)
    assert share.warmup_ms == 200


def test_options_survive_json() -> None:
    options = BenchOptions(
        percentiles=(99.9,), batches=(1, 8), threads=2, modes=("synchronous", "pipelined"), streams=4
    )
    assert BenchOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    assert options.all_percentiles == (90, 95, 99, 99.9)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"warmup_ms": -1}, "warmup_ms"),
        ({"warmup_ms": float("nan")}, "warmup_ms"),
        ({"warmup_iterations": 0}, "warmup_iterations"),
        ({"duration_s": 1e9}, "duration_s"),
        ({"iterations": 0}, "iterations"),
        ({"rounds": 0}, "rounds"),
        ({"threads": 0}, "threads"),
        ({"batches": ()}, "batches"),
        ({"batches": (1, 8, 1)}, "none twice"),
        ({"batches": (0,)}, "batch size"),
        ({"percentiles": (100.0,)}, "percentile"),
        ({"percentiles": (0.0,)}, "percentile"),
        ({"modes": ()}, "one or both"),
        ({"modes": ("pipelined", "pipelined")}, "one or both"),
        ({"modes": ("pipelind",)}, "did you mean 'pipelined'"),
        ({"modes": ("pipelined",), "streams": 0}, "streams"),
        ({"streams": 2}, "requests in flight"),
        ({"lenght": 3}, "lenght"),
        ({"rounds": "three"}, "not options"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BenchOptions.from_dict(values)
