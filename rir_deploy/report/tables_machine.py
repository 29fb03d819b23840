"""Tables on machines: what one is, and what became of it while it was timed on."""

from __future__ import annotations

from collections.abc import Mapping

from rir_deploy.report import text
from rir_deploy.report.schema_bench import Clocks, Conditions, DeviceClock, GpuConditions, GpuState, Machine
from rir_deploy.report.table import Cell, Table, facts


def machine_table(machine: Machine, name: str, caption: str) -> Table:
    """A machine as name and value; what could not be read is left out."""
    clocks, board = machine.clocks, machine.board
    rows = [
        ("system", machine.system),
        ("CPU", machine.cpu),
        ("cores", text.count(machine.cores)),
        ("memory", "" if machine.memory_gb is None else f"{machine.memory_gb:g} GB"),
        ("CPU features", ", ".join(machine.features)),
        ("CPU clocks", _clocks(clocks)),
        ("container's CPU quota", "" if clocks.quota_cores is None else f"{clocks.quota_cores:g} cores"),
        ("power mode", board.power_mode or ""),
        ("GPU", ", ".join(machine.gpus) or "none"),
        ("GPU clock", _each([(one.name, _device(one)) for one in board.gpu_clocks])),
        ("GPU now", _each([(one.name, _state(one)) for one in machine.gpu_states])),
        ("NVIDIA driver", machine.driver or "none"),
        ("temperatures", _by_name(board.temperatures_c, "°C")),
        ("power drawn", _by_name(board.power_w, "W")),
        ("Python", machine.python),
    ]
    return _known(name, caption, rows)


def conditions_table(conditions: Conditions) -> Table:
    """What happened to the machine while it was timed on; what could not be read is left out."""
    rows = [
        ("watched for", f"{text.number(conditions.seconds, 0)} s"),
        ("CPU time taken by other processes", _share(conditions.others)),
        ("CPU time given to other machines", _share(conditions.steal)),
        ("CPU clock", _range(conditions.cpu_mhz)),
        ("CPU power", "" if conditions.cpu_power_w is None else f"{conditions.cpu_power_w:.1f} W on average"),
        ("slowed down by heat or power", _times(conditions.throttles)),
        ("stopped by the container's quota", _times(conditions.quota_stops)),
        ("highest temperatures", _by_name(conditions.max_temperatures_c, "°C")),
        ("most power drawn", _by_name(conditions.max_power_w, "W")),
        ("GPU", _each([(one.name, _gpu(one)) for one in conditions.gpus])),
    ]
    return _known("conditions", "The machine while it was timed on", rows)


def _known(name: str, caption: str, rows: list[tuple[str, str]]) -> Table:
    return facts(name, caption, [(key, Cell(value)) for key, value in rows if value])


def _clocks(clocks: Clocks) -> str:
    return _list(
        "" if clocks.fastest_mhz is None else f"{clocks.fastest_mhz:.0f} MHz",
        "" if clocks.max_mhz is None else f"up to {clocks.max_mhz:.0f} MHz",
        f"governor {clocks.governor}" if clocks.governor else "",
        "" if clocks.turbo is None else f"turbo {'on' if clocks.turbo else 'off'}",
    )


def _device(clock: DeviceClock) -> str:
    return _of(clock.mhz, clock.max_mhz, "MHz")


def _state(gpu: GpuState) -> str:
    return _list(
        _of(gpu.clock_mhz, gpu.max_clock_mhz, "MHz"),
        "" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} °C",
        _of(gpu.power_w, gpu.power_limit_w, "W"),
        _slowed(gpu.throttled),
    )


def _gpu(gpu: GpuConditions) -> str:
    return _list(
        _range(gpu.clock_mhz),
        "" if gpu.max_temperature_c is None else f"up to {gpu.max_temperature_c:.0f} °C",
        "" if gpu.max_power_w is None else f"up to {gpu.max_power_w:.0f} W",
        _slowed(gpu.throttled),
    )


def _slowed(reasons: tuple[str, ...]) -> str:
    return f"slowed down by {', '.join(reasons)}" if reasons else ""


def _of(value: float | None, largest: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f} {unit}" if largest is None else f"{value:.0f} of {largest:.0f} {unit}"


def _range(mhz: tuple[float, float] | None) -> str:
    if mhz is None:
        return ""
    low, high = (f"{value:.0f}" for value in mhz)
    return f"{low} MHz" if low == high else f"{low} to {high} MHz"


def _share(value: float | None) -> str:
    return "" if value is None else text.percent(value, 1)


def _times(count: int | None) -> str:
    return "" if count is None else "never" if count == 0 else text.plural(count, "time")


def _by_name(values: Mapping[str, float], unit: str) -> str:
    return _list(*(f"{name} {value:.1f} {unit}" for name, value in values.items()))


def _each(named: list[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {words}" for name, words in named if words)


def _list(*words: str) -> str:
    return ", ".join(word for word in words if word)
