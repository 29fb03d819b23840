"""Timing a callable, one call after another: every call by itself, on the wall clock."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

from rir_deploy.bench.options import BenchOptions


@dataclass(frozen=True)
class Samples:
    """What one timing saw.

    Attributes:
        times_ns: every timed call, in the order it was made.
        first_ns: the very first call, which is never among them: runtimes finish their set-up in it.
        warmup_runs: the untimed calls, the first one included.
        elapsed_ns: the time in which the timed calls were made: their sum, where one came after another.
    """

    times_ns: tuple[int, ...]
    first_ns: int
    warmup_runs: int
    elapsed_ns: int


def time_callable(run: Callable[[], object], options: BenchOptions) -> Samples:
    """Warm ``run`` up, then time it for the duration and the number of calls asked for, whichever takes longer.

    ``options.rounds`` plays no part here: it is what the caller repeats. What ``run`` raises passes through.
    """
    with collector_off():
        warmup = _repeat(run, options.warmup_ms * 1e6, options.warmup_iterations)
        times = _repeat(run, options.duration_s * 1e9, options.iterations)
    return Samples(tuple(times), warmup[0], len(warmup), sum(times))


def _repeat(run: Callable[[], object], least_ns: float, least_runs: int) -> list[int]:
    """The time of every call in ns, until both bounds are reached; one call at least."""
    times: list[int] = []
    end = perf_counter_ns() + least_ns
    while True:
        start = perf_counter_ns()
        run()
        stop = perf_counter_ns()
        times.append(stop - start)
        if stop >= end and len(times) >= least_runs:
            return times


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector would stop some calls and not others."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
