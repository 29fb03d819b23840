"""The board: its temperatures, and of a Jetson its power mode, the clocks of its GPU and the power it draws."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from rir_deploy.bench.system_files import ask, entries, read_mhz, read_number, read_text

ROOT = Path("/")
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gb10b")


@dataclass(frozen=True)
class DeviceClock:
    """A Jetson's GPU; ``min_mhz`` is ``max_mhz`` where the clock is locked, as jetson_clocks does."""

    name: str
    mhz: float | None
    min_mhz: float | None
    max_mhz: float | None


@dataclass(frozen=True)
class Board:
    """What cannot be read is None or left out.

    Attributes:
        power_mode: of a Jetson, by nvpmodel: "MAXN".
        gpu_clocks: of a Jetson's GPU, which nvidia-smi says nothing about.
        temperatures_c: by thermal zone.
        power_w: by supply rail of a Jetson: {"VDD_IN": 7.2}.
    """

    power_mode: str | None = None
    gpu_clocks: tuple[DeviceClock, ...] = ()
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)


def read_board(root: Path = ROOT) -> Board:
    mode = re.search(r"^NV Power Mode: *(\S+)", ask(["nvpmodel", "-q"]) or "", re.M)
    return Board(
        power_mode=None if mode is None else mode.group(1),
        gpu_clocks=tuple(
            _clock(folder) for folder in entries(root / "sys/class/devfreq", "*") if _GPU.search(folder.name)
        ),
        temperatures_c=temperatures(root),
        power_w=rails(root),
    )


def temperatures(root: Path = ROOT) -> dict[str, float]:
    """By thermal zone, in °C; a zone whose sensor is switched off gives an error and is left out."""
    found = {}
    for zone in entries(root / "sys/class/thermal", "thermal_zone*"):
        name, value = read_text(zone / "type"), read_number(zone / "temp")
        if name and value is not None:
            found[name if name not in found else f"{name} {zone.name}"] = round(value / 1000, 1)
    return found


def rails(root: Path = ROOT) -> dict[str, float]:
    """Watts by rail, of the INA3221 monitors of a Jetson: volts in mV by amperes in mA."""
    found = {}
    for monitor in entries(root / "sys/class/hwmon", "hwmon*"):
        for label in entries(monitor, "in*_label") if read_text(monitor / "name") == "ina3221" else []:
            number = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = read_number(monitor / f"in{number}_input"), read_number(monitor / f"curr{number}_input")
            if volts is not None and amperes is not None:
                found[read_text(label) or label.name] = round(volts * amperes / 1e6, 2)
    return found


def _clock(folder: Path) -> DeviceClock:
    now, low, high = (read_mhz(folder / name, 1.0) for name in ("cur_freq", "min_freq", "max_freq"))
    return DeviceClock(folder.name, now, low, high)
