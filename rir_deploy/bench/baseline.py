"""The latency gate: what a call takes against what it took in an earlier run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

from rir_deploy.bench.options import SYNCHRONOUS
from rir_deploy.bench.rows import BenchRow
from rir_deploy.errors import BackendError, InputError
from rir_deploy.strict_data import parse_json

# (engine, backend, batch size, mode)
Key = tuple[str, str, int, str]
# What a row says of how it was timed, each with its words.
_HOW: dict[str, Callable[[Any], str]] = {
    "threads": lambda count: f"on {count} thread{'' if count == 1 else 's'}",
    "streams": lambda count: f"with {count} request{'' if count == 1 else 's'} in flight",
    "cuda_graph": lambda used: f"{'with' if used else 'without'} a CUDA graph",
    "transfers": lambda timed: f"{'with' if timed else 'without'} the copies to and from the GPU",
}


@dataclass(frozen=True)
class Baseline:
    """An earlier run's ms a call (`LatencyRecord.cost_ms`).

    ``cpu`` is its machine's, None where it does not say; ``how`` holds what the rows say of threads, streams, CUDA
    graphs and copies. ``role`` is what it is called in messages: a gate's baseline, or what it serves as elsewhere.
    """

    file: str
    costs_ms: dict[Key, float]
    cpu: str | None
    how: Mapping[Key, Mapping[str, object]] = field(default_factory=dict)
    role: str = "baseline"

    def find(self, row: BenchRow) -> float | None:
        """That of the same engine: by the path as given, or else by its last part where only one has it."""
        key = self._key(row)
        return None if key is None else self.costs_ms[key]

    def _key(self, row: BenchRow) -> Key | None:
        exact = (row.engine, row.backend, row.batch, row.mode)
        if exact in self.costs_ms:
            return exact
        name = PurePath(row.engine).name
        named = [key for key in self.costs_ms if (PurePath(key[0]).name, *key[1:]) == (name, *exact[1:])]
        return named[0] if len(named) == 1 else None

    def another_machine(self, cpu: str) -> list[str]:
        """That it was measured on another machine than this ``cpu``, if so: a figure to be wary of."""
        if self.cpu in (None, cpu):
            return []
        return [f"the {self.role} was measured on another machine ({self.cpu}, here {cpu}); make one here"]

    def otherwise(self, row: BenchRow) -> str:
        """In which way the row was timed and its figure here was not, so that they cannot be compared; "" for none."""
        key = self._key(row)
        before = {} if key is None else self.how.get(key, {})
        now = dict(row.details)
        if row.record is not None and row.record.streams is not None:
            now["streams"] = row.record.streams
        for name, words in _HOW.items():
            if name in before and name in now and before[name] != now[name]:
                return (
                    f"the {self.role} was measured {words(before[name])}, and this is {words(now[name])}: "
                    "the times cannot be compared; make one in the same way"
                )
        return ""


@dataclass(frozen=True)
class Comparison:
    """``change`` is the share by which the time of a call grew: 0.05 is 5 % slower.

    The times are medians of synchronous calls; of pipelined ones, the time from one answer to the next.
    """

    engine: str
    backend: str
    batch: int
    mode: str
    baseline_ms: float
    now_ms: float
    change: float


@dataclass(frozen=True)
class BaselineResult:
    """The verdict; ``missing`` names the rows that the baseline lacks or has timed otherwise, ``lost`` those that it
    has and that did not run, and why."""

    file: str
    max_regression: float
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Comparison, ...]:
        return tuple(one for one in self.comparisons if one.change > self.max_regression)

    @property
    def passed(self) -> bool:
        return not self.regressions and not self.lost

    @property
    def failures(self) -> list[str]:
        slower = [
            f"{one.engine} at batch {one.batch}{'' if one.mode == SYNCHRONOUS else f', {one.mode},'} takes "
            f"{one.now_ms:.3f} ms, {one.change:.1%} more than "
            f"{one.baseline_ms:.3f} ms (allowed: {self.max_regression:.1%})"
            for one in self.regressions
        ]
        return [*slower, *(f"{one}, which the baseline has" for one in self.lost)]

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "max_regression": self.max_regression,
            "passed": self.passed,
            "comparisons": [asdict(one) for one in self.comparisons],
            "regressions": [asdict(one) for one in self.regressions],
            "missing": list(self.missing),
            "lost": list(self.lost),
        }


def read_baseline(path: Path, role: str = "baseline") -> Baseline:
    """Read what ``bench --json`` printed; rows that were not run are passed over. Messages call it its ``role``.

    Raises:
        InputError: no such file, not JSON, no usable row, a figure that is no positive number, a row twice.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {role} '{path}'; write one with: bench ... --json > {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the {role} '{path}' is not readable JSON; write it with bench ... --json") from error
    try:
        ran = [row for row in data["results"] if row.get("status", "ok") == "ok"]
        pairs = [_parse(row) for row in ran]
        how = {key: {name: row[name] for name in _HOW if name in row} for (key, _), row in zip(pairs, ran, strict=True)}
        cpu = data.get("machine", {}).get("cpu")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the {role} '{path}' is not what bench --json prints ({error!r}); write it again") from error
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice or not pairs:
        problem = f"holds '{twice[0][0]}' at batch {twice[0][2]} twice" if twice else "holds no engine that ran"
        raise InputError(f"the {role} '{path}' {problem}; write one that names each engine once")
    return Baseline(str(path), dict(pairs), cpu if isinstance(cpu, str) else None, how, role)


def _parse(row: Any) -> tuple[Key, float]:
    engine, backend, batch, mode = row["engine"], row["backend"], row["batch"], row.get("mode", SYNCHRONOUS)
    if not all(isinstance(value, str) for value in (engine, backend, mode)):
        raise TypeError("engine, backend and mode must be text")
    # Of synchronous calls the median, which a few slow ones leave alone; of pipelined ones what the throughput says.
    name = "median" if mode == SYNCHRONOUS else "throughput_per_s"
    value = row["latency_ms"]["median"] if mode == SYNCHRONOUS else row["throughput_per_s"]
    if type(batch) is not int or type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"'{engine}' has batch {batch!r} and {name} {value!r}")
    return (engine, backend, batch, mode), float(value if mode == SYNCHRONOUS else 1000 * batch / value)


def check_common(rows: Sequence[BenchRow], baseline: Baseline) -> None:
    """Refuse, before anything is timed, a baseline to which no row can be held: such a gate would pass anything.

    Raises:
        InputError: naming what the baseline has, or how it was measured.
    """
    shared = [row for row in rows if baseline.find(row)]
    if not shared:
        known = ", ".join(
            f"{engine} ({backend}) at batch {batch}, {mode}" for engine, backend, batch, mode in baseline.costs_ms
        )
        raise InputError(f"the baseline '{baseline.file}' has nothing that is to be timed here; it has {known}")
    others = [baseline.otherwise(row) for row in shared]
    if all(others):
        raise InputError(f"nothing can be held against '{baseline.file}': {others[0]}")


def compare(rows: Sequence[BenchRow], baseline: Baseline, max_regression: float) -> BaselineResult:
    """Judge every row by the baseline; ``max_regression`` is a share (0.05 for 5 %).

    Raises:
        BackendError: nothing that the baseline has could be run.
        InputError: what ran was timed in another way than the baseline.
    """
    found, missing, lost = [], [], []
    for row in rows:
        before, otherwise = baseline.find(row), baseline.otherwise(row)
        if before is None or otherwise:
            missing.append(f"{row.label}: {otherwise or 'not in the baseline'}")
            continue
        if row.record is None:
            lost.append(f"{row.label}: not run: {row.reason}")
            continue
        after = row.record.cost_ms
        found.append(Comparison(row.engine, row.backend, row.batch, row.mode, before, after, after / before - 1))
    if not found:
        error = BackendError if lost else InputError
        raise error(f"nothing to compare with the baseline '{baseline.file}' ran: {'; '.join(lost + missing)}")
    return BaselineResult(baseline.file, max_regression, tuple(found), tuple(missing), tuple(lost))
