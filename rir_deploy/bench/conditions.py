"""What the machine did while something was timed: who else used it, and what became of its clocks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rir_deploy.bench.board import rails, temperatures
from rir_deploy.bench.cpu import current_mhz, quota_stops, throttle_events
from rir_deploy.bench.gpu import GpuState, read_gpus
from rir_deploy.bench.system_files import entries, read_number, read_text

ROOT = Path("/")
# Seconds between two looks: seldom enough that looking costs nothing that could be seen in a figure.
INTERVAL_S = 2.0
# The order of /proc/stat: user nice system idle iowait irq softirq steal.
_BUSY, _STEAL, _ALL = (0, 1, 2, 5, 6), 7, 8


@dataclass(frozen=True)
class Counters:
    """What has been counted up to a moment. CPU seconds are of the given cores, ``own_s`` of this process and of those
    that it started and that have ended. None is what the system does not count.
    """

    at_s: float
    busy_s: float | None
    steal_s: float | None
    total_s: float | None
    own_s: float
    throttles: int | None
    quota_stops: int | None
    energy_j: float | None


def read_counters(cores: Sequence[int], root: Path = ROOT) -> Counters:
    ticks = _cpu_ticks(cores, root)
    second = os.sysconf("SC_CLK_TCK") if ticks else 1
    times = os.times()
    return Counters(
        at_s=time.monotonic(),
        busy_s=sum(sum(row[i] for i in _BUSY) for row in ticks) / second if ticks else None,
        steal_s=sum(row[_STEAL] for row in ticks) / second if ticks else None,
        total_s=sum(map(sum, ticks)) / second if ticks else None,
        own_s=sum(times[:4]),
        throttles=throttle_events(cores, root),
        quota_stops=quota_stops(root),
        energy_j=_energy_j(root),
    )


def _cpu_ticks(cores: Sequence[int], root: Path) -> list[list[int]]:
    lines = [line.split() for line in (read_text(root / "proc/stat") or "").splitlines()]
    wanted = {f"cpu{core}" for core in cores}
    return [
        [int(cell) for cell in line[1 : _ALL + 1]] for line in lines if line[:1] and line[0] in wanted and line[_ALL:]
    ]


def _energy_j(root: Path) -> float | None:
    """Of all CPU packages since some moment, by Intel's RAPL, which most systems let only root read."""
    files = (folder / "energy_uj" for folder in entries(root / "sys/class/powercap", "intel-rapl:?"))
    values = [read_number(file) for file in files]
    known = [value for value in values if value is not None]
    return sum(known) / 1e6 if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Look:
    """One moment: the clock of the fastest core, heat, power and GPUs."""

    cpu_mhz: float | None
    temperatures_c: dict[str, float]
    power_w: dict[str, float]
    gpus: tuple[GpuState, ...]

    @property
    def empty(self) -> bool:
        return self == Look(None, {}, {}, ())


def take_look(cores: Sequence[int], root: Path = ROOT) -> Look:
    fastest = max(current_mhz(cores, root), default=None)
    return Look(fastest, temperatures(root), rails(root), read_gpus())


@dataclass(frozen=True)
class Conditions:
    """Shares are of the CPU time of this process's cores; ranges are (lowest, highest) of all looks. None: not known.

    Attributes:
        seconds: how long was watched.
        steal: what the hypervisor gave to other machines.
        others: what other processes of this machine took.
        throttles: how often clocks were slowed down by heat or power.
        quota_stops: how often the container was stopped because its CPU time was used up.
        cpu_power_w: of all CPU packages, on average.
        cpu_mhz: the clock of the fastest core.
        max_temperatures_c, max_power_w: the highest by thermal zone and by supply rail.
        gpus: one a GPU.
    """

    seconds: float
    steal: float | None
    others: float | None
    throttles: int | None
    quota_stops: int | None
    cpu_power_w: float | None
    cpu_mhz: tuple[float, float] | None
    max_temperatures_c: dict[str, float]
    max_power_w: dict[str, float]
    gpus: tuple[GpuConditions, ...]


@dataclass(frozen=True)
class GpuConditions:
    """``throttled``: every reason that was seen."""

    name: str
    clock_mhz: tuple[float, float] | None
    max_temperature_c: float | None
    max_power_w: float | None
    throttled: tuple[str, ...]


def conditions_of(before: Counters, after: Counters, looks: Sequence[Look]) -> Conditions:
    """What lies between two readings, and what was seen in between; ``looks`` are one or more."""
    total = _difference(before.total_s, after.total_s)
    busy, steal = _difference(before.busy_s, after.busy_s), _difference(before.steal_s, after.steal_s)
    energy, seconds = _difference(before.energy_j, after.energy_j), after.at_s - before.at_s
    clocks = [look.cpu_mhz for look in looks if look.cpu_mhz is not None]
    return Conditions(
        seconds=seconds,
        steal=steal / total if steal is not None and total else None,
        others=max(busy - after.own_s + before.own_s, 0.0) / total if busy is not None and total else None,
        throttles=_count(before.throttles, after.throttles),
        quota_stops=_count(before.quota_stops, after.quota_stops),
        # The counter begins again at 0 every few hours.
        cpu_power_w=energy / seconds if energy is not None and energy >= 0 and seconds > 0 else None,
        cpu_mhz=(min(clocks), max(clocks)) if clocks else None,
        max_temperatures_c=_highest([look.temperatures_c for look in looks]),
        max_power_w=_highest([look.power_w for look in looks]),
        gpus=tuple(_of_gpu(list(states)) for states in zip(*(look.gpus for look in looks), strict=False)),
    )


def _of_gpu(states: Sequence[GpuState]) -> GpuConditions:
    clocks = [state.clock_mhz for state in states if state.clock_mhz is not None]
    return GpuConditions(
        states[0].label,
        (min(clocks), max(clocks)) if clocks else None,
        max((state.temperature_c for state in states if state.temperature_c is not None), default=None),
        max((state.power_w for state in states if state.power_w is not None), default=None),
        tuple(dict.fromkeys(reason for state in states for reason in state.throttled)),
    )


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _count(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _highest(readings: Sequence[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for reading in readings:
        for name, value in reading.items():
            found[name] = max(value, found.get(name, value))
    return found


class Watch:
    """Reads the machine from the beginning of a ``with`` block to its end; `conditions` is for after it.

    Looks in between are taken by a thread; where the system shows nothing that could be looked at, there is none.
    """

    def __init__(self, cores: Sequence[int], root: Path = ROOT, interval_s: float = INTERVAL_S) -> None:
        self._cores, self._root, self._interval_s = cores, root, interval_s
        self._looks: list[Look] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._looks = [take_look(self._cores, self._root)]
        if not self._looks[0].empty:
            self._thread = threading.Thread(target=self._look_again, daemon=True)
            self._thread.start()
        self._before = read_counters(self._cores, self._root)
        return self

    def __exit__(self, *exception: object) -> None:
        self._after = read_counters(self._cores, self._root)
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def conditions(self) -> Conditions:
        # The first look was at a machine at rest, whose clocks say nothing about the timing.
        return conditions_of(self._before, self._after, self._looks[1:] or self._looks)

    def _look_again(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._looks.append(take_look(self._cores, self._root))
