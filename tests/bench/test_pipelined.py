"""Several calls in flight: against a queue that is computed by hand, and with real threads."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from rir_deploy.bench import pipelined
from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.pipelined import time_pipelined

MS = 1_000_000
QUICK = BenchOptions(warmup_ms=0, warmup_iterations=2, duration_s=0, iterations=6)


class Clock:
    """A clock in ns that moves by 10 ms with every call."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += 10 * MS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pipelined, "perf_counter_ns", clock)
    return clock


@pytest.mark.parametrize(
    ("options", "warmup_runs", "timed"),
    [
        # 10 ms a call, on one stream: time asks for more calls than the count does, and the other way round.
        (BenchOptions(warmup_ms=200, warmup_iterations=3, duration_s=1, iterations=10), 20, 100),
        (BenchOptions(warmup_ms=15, warmup_iterations=30, duration_s=0.05, iterations=8), 30, 8),
    ],
)
def test_both_bounds_hold(options: BenchOptions, warmup_runs: int, timed: int, clock: Clock) -> None:
    samples = time_pipelined(clock.run, 1, options)
    assert (samples.warmup_runs, samples.times_ns) == (warmup_runs, (10 * MS,) * timed)
    assert samples.elapsed_ns == timed * 10 * MS
    assert samples.first_ns == 10 * MS


@pytest.mark.parametrize(("streams", "warmup_runs"), [(1, 2), (2, 2), (5, 5)])
def test_one_call_a_stream_at_least_is_untimed(streams: int, warmup_runs: int, clock: Clock) -> None:
    assert time_pipelined(clock.run, streams, QUICK).warmup_runs == warmup_runs


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_so_many_calls_are_in_flight_and_no_more(streams: int) -> None:
    """Each call waits until all streams are in one: fewer would never come together, more would be seen."""
    together, lock = threading.Barrier(streams), threading.Lock()
    inside, most = 0, 0

    def run() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        if not stop.is_set():
            together.wait(timeout=10)
        with lock:
            inside -= 1

    stop, calls = threading.Event(), count()

    def limited() -> None:
        if next(calls) >= 20 * streams:
            stop.set()
            together.abort()
        try:
            run()
        except threading.BrokenBarrierError:
            stop.set()

    options = BenchOptions(warmup_ms=0, warmup_iterations=streams, duration_s=0, iterations=5 * streams)
    samples = time_pipelined(limited, streams, options)
    assert most == streams
    assert len(samples.times_ns) == 5 * streams


def test_sleeps_overlap() -> None:
    """Four streams of a call that waits get through more of them than one stream could in the same time."""
    options = BenchOptions(warmup_ms=0, warmup_iterations=4, duration_s=0, iterations=40)
    samples = time_pipelined(lambda: time.sleep(0.005), 4, options)
    assert min(samples.times_ns) >= 5 * MS
    assert samples.elapsed_ns < sum(samples.times_ns) / 2


def test_an_error_in_any_thread_ends_all_and_is_raised() -> None:
    calls = count()

    def run() -> None:
        if next(calls) == 7:
            raise ZeroDivisionError("seventh")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="seventh"):
        time_pipelined(run, 3, BenchOptions(warmup_ms=0, duration_s=3600, iterations=1))
    assert threading.active_count() == before


def test_the_collector_is_off_while_timing_and_back_on_after() -> None:
    seen: list[bool] = []
    note: Callable[[], None] = lambda: seen.append(gc.isenabled())  # noqa: E731
    time_pipelined(note, 2, QUICK)
    assert not any(seen)
    assert gc.isenabled()
