"""The clocks of the CPU, and how much of it this process may use: cpufreq in sysfs, and the control groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rir_deploy.bench.system_files import entries, read_mhz, read_number, read_text

ROOT = Path("/")
_CPUS = Path("sys/devices/system/cpu")
_GROUPS = Path("sys/fs/cgroup")


@dataclass(frozen=True)
class CpuClocks:
    """Of the cores that this process may use; None is what the system does not say.

    Attributes:
        governor: "performance" where the clocks do not follow the load; several names where the cores differ.
        min_mhz, max_mhz: the bounds that are set now.
        slowest_mhz, fastest_mhz: the clocks of the slowest and the fastest core at the moment of reading.
        turbo: whether clocks over the nominal one are allowed.
        quota_cores: CPU time that the container or group may use, in cores; None without a limit.
    """

    governor: str | None = None
    min_mhz: float | None = None
    max_mhz: float | None = None
    slowest_mhz: float | None = None
    fastest_mhz: float | None = None
    turbo: bool | None = None
    quota_cores: float | None = None


def read_clocks(cores: Sequence[int], root: Path = ROOT) -> CpuClocks:
    folders = [root / _CPUS / f"cpu{core}" / "cpufreq" for core in cores]
    governors = {text for folder in folders if (text := read_text(folder / "scaling_governor"))}
    lows = [mhz for folder in folders if (mhz := read_mhz(folder / "scaling_min_freq", 1e3)) is not None]
    highs = [mhz for folder in folders if (mhz := read_mhz(folder / "scaling_max_freq", 1e3)) is not None]
    now = current_mhz(cores, root) or _from_cpuinfo(cores, root)
    return CpuClocks(
        governor=", ".join(sorted(governors)) or None,
        min_mhz=min(lows, default=None),
        max_mhz=max(highs, default=None),
        slowest_mhz=min(now, default=None),
        fastest_mhz=max(now, default=None),
        turbo=_turbo(root),
        quota_cores=quota_cores(root),
    )


def current_mhz(cores: Sequence[int], root: Path = ROOT) -> list[float]:
    files = (root / _CPUS / f"cpu{core}" / "cpufreq" / "scaling_cur_freq" for core in cores)
    return [mhz for file in files if (mhz := read_mhz(file, 1e3)) is not None]


def _from_cpuinfo(cores: Sequence[int], root: Path) -> list[float]:
    found = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: ([0-9.]+)$", read_text(root / "proc/cpuinfo") or "", re.M)]
    return [found[core] for core in cores if core < len(found)]


def _turbo(root: Path) -> bool | None:
    off = read_number(root / _CPUS / "intel_pstate" / "no_turbo")
    if off is not None:
        return not off
    boost = read_number(root / _CPUS / "cpufreq" / "boost")
    return None if boost is None else bool(boost)


def quota_cores(root: Path = ROOT) -> float | None:
    """The tightest limit from this process's own group up to the root, of either version of control groups."""
    quotas = [_quota_2(folder) for folder in _own_groups(root, "", _GROUPS)]
    for name in ("cpu", "cpu,cpuacct"):
        quotas += [_quota_1(folder) for folder in _own_groups(root, "cpu", _GROUPS / name)]
    return min((quota for quota in quotas if quota is not None), default=None)


def quota_stops(root: Path = ROOT) -> int | None:
    """How often this process's group was stopped because its CPU time was used up."""
    folders = _own_groups(root, "", _GROUPS) + _own_groups(root, "cpu", _GROUPS / "cpu")
    texts = [read_text(folder / "cpu.stat") or "" for folder in folders]
    counts = [int(count) for text in texts for count in re.findall(r"^nr_throttled (\d+)$", text, re.M)]
    return max(counts, default=None)


def throttle_events(cores: Sequence[int], root: Path = ROOT) -> int | None:
    """How often cores, packages or a Jetson's power supply slowed the clocks down since the start of the machine."""
    files = [file for core in cores for file in entries(root / _CPUS / f"cpu{core}" / "thermal_throttle", "*_count")]
    files += entries(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt")
    counts = [int(count) for file in files if (count := read_number(file)) is not None]
    return sum(counts) if counts else None


def _own_groups(root: Path, controller: str, mount: Path) -> list[Path]:
    """The folder of this process's group and those above it: "0::/a/b" of version 2, "3:cpu,cpuacct:/a" of 1."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if controller in names.split(","):
            own = Path(path.strip("/"))
            return [root / mount / part for part in (own, *own.parents)]
    return []


def _quota_2(folder: Path) -> float | None:
    quota, _, period = (read_text(folder / "cpu.max") or "max").partition(" ")
    return None if quota == "max" or not period.isdecimal() else int(quota) / int(period)


def _quota_1(folder: Path) -> float | None:
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return None if quota is None or not period or quota < 0 else quota / period
