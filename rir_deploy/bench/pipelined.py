"""Timing a callable with several calls in flight: each caller makes its next call as soon as the last one returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter_ns

from rir_deploy.bench.latency import Samples, collector_off
from rir_deploy.bench.options import BenchOptions


def time_pipelined(run: Callable[[], object], streams: int, options: BenchOptions) -> Samples:
    """Call ``run`` from ``streams`` threads at once and time the calls between two moments of the steady load.

    Nothing pauses between warm-up and timing. Both ends of the timing are ends of calls, so that the calls that end
    in between over the time in between are the throughput, whatever was in flight at either end.

    Raises:
        Exception: what ``run`` raises in any of the threads, once all have stopped.
    """
    load = _Load(run, options, max(options.warmup_iterations, streams))
    with collector_off():
        callers = [threading.Thread(target=load.call) for _ in range(streams)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    if load.error is not None:
        raise load.error
    return load.samples()


@dataclass
class _Load:
    """What the callers share; ``calls`` are (start, end) in the order of their ends. ``untimed`` of them are made at
    least: one a stream, each of which may have something to set up.
    """

    run: Callable[[], object]
    options: BenchOptions
    untimed: int
    calls: list[tuple[int, int]] = field(default_factory=list)
    began_ns: int = field(default_factory=lambda: perf_counter_ns())
    # How many calls were made when the timing began, None before; the last of them ended at that moment.
    warmup_runs: int | None = None
    done: bool = False
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> None:
        while not self.done:
            start = perf_counter_ns()
            try:
                self.run()
            except BaseException as error:  # the caller's thread raises it
                self.error, self.done = error, True
                return
            with self.lock:
                if not self.done:
                    self._note(start, perf_counter_ns())

    def _note(self, start: int, end: int) -> None:
        self.calls.append((start, end))
        options = self.options
        if self.warmup_runs is None:
            if end - self.began_ns >= options.warmup_ms * 1e6 and len(self.calls) >= self.untimed:
                self.warmup_runs = len(self.calls)
            return
        timed, elapsed = len(self.calls) - self.warmup_runs, end - self.calls[self.warmup_runs - 1][1]
        self.done = elapsed >= options.duration_s * 1e9 and timed >= options.iterations

    def samples(self) -> Samples:
        assert self.warmup_runs is not None  # the callers stop only after the timing, or with an error
        times = tuple(end - start for start, end in self.calls)
        first = min(self.calls)
        elapsed = self.calls[-1][1] - self.calls[self.warmup_runs - 1][1]
        return Samples(times[self.warmup_runs :], first[1] - first[0], self.warmup_runs, elapsed)
