"""How a callable is timed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from rir_deploy.errors import UsageError, unknown_name

# One request at a time, as an application that waits for each answer sees it; several in flight, as a server does.
SYNCHRONOUS, PIPELINED = "synchronous", "pipelined"
MODES = (SYNCHRONOUS, PIPELINED)
# As users choose them.
MODE_CHOICES = {"latency": (SYNCHRONOUS,), "throughput": (PIPELINED,), "both": MODES}
# Always reported; the defaults of trtexec.
PERCENTILES = (90.0, 95.0, 99.0)
MAX_MS = 600_000.0


@dataclass(frozen=True)
class BenchOptions:
    """How long and how often to time; the defaults are those of trtexec.

    Attributes:
        warmup_ms: 0 to 600,000; how long calls are made before any is timed.
        warmup_iterations: 1 to 1,000,000; untimed calls at least, however short ``warmup_ms`` is; when pipelined, one a
            stream too.
        duration_s: 0 to 3,600; how long calls are timed, over all rounds.
        iterations: 1 to 1,000,000; timed calls at least, over all rounds, however short ``duration_s`` is.
        rounds: 1 to 100; the contenders take turns this often, so that a machine whose speed drifts hits all alike.
        percentiles: reported beside 90, 95 and 99; each over 0 and under 100.
        batches: batch sizes, each 1 to 65,536, none twice.
        threads: 1 to 1,024 for the runtimes; None for all the cores that the process may use.
        modes: "synchronous", "pipelined" or both, each a row of its own.
        streams: 1 to 1,024 requests in flight when pipelined; None for what the runtime recommends.

    Raises:
        UsageError: a value out of range.
    """

    warmup_ms: float = 200.0
    warmup_iterations: int = 3
    duration_s: float = 3.0
    iterations: int = 10
    rounds: int = 3
    percentiles: tuple[float, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    modes: tuple[str, ...] = (SYNCHRONOUS,)
    streams: int | None = None

    def __post_init__(self) -> None:
        _check("warmup_ms", self.warmup_ms, 0, MAX_MS)
        _check("warmup_iterations", self.warmup_iterations, 1, 1_000_000)
        _check("duration_s", self.duration_s, 0, 3_600)
        _check("iterations", self.iterations, 1, 1_000_000)
        _check("rounds", self.rounds, 1, 100)
        _check("threads", 1 if self.threads is None else self.threads, 1, 1_024)
        _check("streams", 1 if self.streams is None else self.streams, 1, 1_024)
        for mode in self.modes:
            if mode not in MODES:
                raise unknown_name("mode", mode, MODES)
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise UsageError(f"modes must hold one or both of {', '.join(MODES)}, not {list(self.modes)}")
        if self.streams is not None and PIPELINED not in self.modes:
            raise UsageError("streams are requests in flight: choose the pipelined mode or leave them out")
        for batch in self.batches:
            _check("each batch size", batch, 1, 65_536)
        if not self.batches or len(set(self.batches)) != len(self.batches):
            raise UsageError(f"batches must hold one size or more and none twice, not {list(self.batches)}")
        for percentile in self.percentiles:
            if not 0 < percentile < 100:
                raise UsageError(f"each percentile must be over 0 and under 100, not {percentile:g}")

    @property
    def all_percentiles(self) -> tuple[float, ...]:
        """The standing three and the ones asked for, in order."""
        return tuple(sorted({*PERCENTILES, *self.percentiles}))

    def of_one_round(self) -> BenchOptions:
        """The share of one round."""
        iterations = math.ceil(self.iterations / self.rounds)
        return replace(self, duration_s=self.duration_s / self.rounds, iterations=iterations, rounds=1)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> BenchOptions:
        """Read what `to_dict` wrote, also where it went through JSON, which has lists for tuples.

        Raises:
            UsageError: an unknown key, a wrong type or a value out of range.
        """
        try:
            values: dict[str, Any] = {
                key: tuple(item) if isinstance(item, list) else item for key, item in data.items()
            }
            return BenchOptions(**values)
        except (TypeError, AttributeError) as error:
            raise UsageError(f"these are not options of a bench: {error}") from error


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} must be {low:g} to {high:g}, not {value:g}")
