"""NVIDIA's GPUs as ``nvidia-smi`` describes them: what they are, their clocks, heat and power now."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.bench.system_files import ask

_NUMBERS = {
    "clock_mhz": "clocks.gr",
    "max_clock_mhz": "clocks.max.gr",
    "memory_clock_mhz": "clocks.mem",
    "max_memory_clock_mhz": "clocks.max.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
}
# The bits of NVML's nvmlClocksEventReasons that are a slowing down; the others are idleness and settings.
_REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power supply",
}
# The name of the field after driver 530, and up to it.
_ACTIVE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclass(frozen=True)
class GpuState:
    """One GPU at one moment; None is what its driver does not say. ``throttled``: why it is slowed down."""

    name: str
    target: str
    driver: str
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    max_memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    throttled: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name} ({self.target})"


def read_gpus() -> tuple[GpuState, ...]:
    """Every GPU that the driver shows; none where there is no driver."""
    plain = ["name", "compute_cap", "driver_version"]
    for active in _ACTIVE:
        found = _query([*plain, *_NUMBERS.values(), active])
        if found:
            return tuple(_state(row) for row in found)
    # A driver that does not know all of the fields answers none of them.
    return tuple(_state([*row, *["N/A"] * len(_NUMBERS), "0x0"]) for row in _query(plain))


def _query(fields: list[str]) -> list[list[str]]:
    text = ask(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]) or ""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == len(fields)]


def _state(row: list[str]) -> GpuState:
    name, capability, driver, *values, active = row
    numbers = {key: _number(value) for key, value in zip(_NUMBERS, values, strict=True)}
    bits = int(active, 16) if active.startswith("0x") else 0
    reasons = tuple(reason for bit, reason in _REASONS.items() if bits & bit)
    return GpuState(name, f"sm{capability.replace('.', '')}", driver, **numbers, throttled=reasons)


def _number(text: str) -> float | None:
    """None for "[N/A]", "[Not Supported]", "[Unknown Error]"."""
    try:
        return float(text)
    except ValueError:
        return None
