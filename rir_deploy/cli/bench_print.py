"""What bench prints for people: a table a mode, what engines cost before they answer, and what to be wary of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rir_deploy.bench.options import SYNCHRONOUS
from rir_deploy.bench.rows import speedup
from rir_deploy.cli import common

if TYPE_CHECKING:
    from rir_deploy.bench.baseline import BaselineResult
    from rir_deploy.bench.machine import Machine
    from rir_deploy.bench.rows import BenchRow
    from rir_deploy.pipeline.bench import Benched

_TITLES = {
    "synchronous": "latency: one synchronous request after another",
    "pipelined": "throughput: several requests in flight (times are from a request to its answer, under that load)",
}


def print_benched(benched: Benched) -> None:
    """Machine, settings, the tables, what ran, and what to be wary of."""
    from rir_deploy.report.text import short_names

    _print_setting(benched)
    names = short_names([row.engine for row in benched.rows])
    for mode in dict.fromkeys(row.mode for row in benched.rows):
        _print_mode(mode, benched.rows, names)
    _print_start(benched.rows, names)
    for line in _remarks(benched, names):
        common.say(line)


def _print_setting(benched: Benched) -> None:
    machine, settings = benched.machine, benched.settings
    hardware = ", ".join([*machine.features, *machine.gpus])
    common.say(f"machine: {machine.cpu}, {machine.cores} cores, {machine.system}{f' ({hardware})' if hardware else ''}")
    state = _state(machine)
    if state:
        common.say(f"clocks: {', '.join(state)}")
    rounds = "1 round" if settings["rounds"] == 1 else f"{settings['rounds']} rounds"
    common.say(
        f"settings: {rounds}, {settings['duration_s']:g} s and {settings['iterations']} calls at least, "
        f"warm-up {settings['warmup_ms']:g} ms a round, {settings['threads']} threads, data in host memory"
    )


def _state(machine: Machine) -> list[str]:
    """What the system says of its clocks, heat and power, and nothing where it does not."""
    clocks, board = machine.clocks, machine.board
    said = [
        None if clocks.fastest_mhz is None else f"CPU {clocks.fastest_mhz:.0f} MHz",
        clocks.max_mhz and f"up to {clocks.max_mhz:.0f} MHz",
        clocks.governor and f"governor {clocks.governor}",
        None if clocks.turbo is None else f"turbo {'on' if clocks.turbo else 'off'}",
        clocks.quota_cores and f"quota {clocks.quota_cores:g} cores",
        board.power_mode and f"power mode {board.power_mode}",
        *(f"GPU {gpu.mhz:.0f} MHz" for gpu in board.gpu_clocks if gpu.mhz is not None),
    ]
    for gpu in machine.gpu_states:
        said += [
            None if gpu.clock_mhz is None else f"GPU {gpu.clock_mhz:.0f} MHz",
            None if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} °C",
            None if gpu.power_w is None else f"{gpu.power_w:.0f} W",
        ]
    return [one for one in said if one]


def _print_mode(mode: str, rows: Sequence[BenchRow], names: dict[str, str]) -> None:
    from rir_deploy.report.console import print_table

    chosen = [row for row in rows if row.mode == mode]
    extra = sorted({key for row in chosen if row.record for key in row.record.percentiles_ms})
    times = ("median ms", *(f"p{p:g}" for p in extra))
    head = ("engine", "backend", "precision", "batch")
    columns = (
        (*head, *times, "images/s", "speed") if mode == SYNCHRONOUS else (*head, "streams", "images/s", "speed", *times)
    )
    print_table(_TITLES[mode], columns, [_cells(row, rows, extra, names) for row in chosen])


def _cells(row: BenchRow, rows: Sequence[BenchRow], extra: list[float], names: dict[str, str]) -> list[object]:
    head: list[object] = [names[row.engine], row.backend, row.precision, row.batch]
    factor, record = speedup(row, rows), row.record
    if record is None or factor is None:
        return [*head, *["-"] * (len(extra) + (3 if row.mode == SYNCHRONOUS else 4))]
    times = [f"{ms:.3f}" for ms in (record.median_ms, *(record.percentiles_ms[key] for key in extra))]
    rate = [f"{record.throughput_per_s:,.0f}", f"{factor:.2f}x"]
    return [*head, *times, *rate] if record.streams is None else [*head, record.streams, *rate, *times]


def _print_start(rows: Sequence[BenchRow], names: dict[str, str]) -> None:
    from rir_deploy.report.console import print_table

    columns = ("engine", "backend", "batch", "mode", "load ms", "first request ms", "peak MB", "of that the engine MB")
    keys = ("load_ms", "first_inference_ms", "peak_memory_mb", "engine_memory_mb")
    ran = [row for row in rows if row.record is not None]
    cells = [
        [names[row.engine], row.backend, row.batch, row.mode, *(_figure(row.details[key]) for key in keys)]
        for row in ran
    ]
    print_table("start: what an engine costs before it answers", columns, cells)


def _figure(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"


def _remarks(benched: Benched, names: dict[str, str]) -> list[str]:
    """What really ran, what did not, and what makes a figure doubtful."""
    ran = [f"{names[row.engine]} runs on {row.details['runs_on']}" for row in benched.rows if row.record is not None]
    absent = [f"not run: {names[row.engine]} ({row.backend}): {row.reason}" for row in benched.rows if not row.record]
    lines = list(dict.fromkeys([*ran, *absent]))
    for row in benched.rows:
        for warning in row.record.warnings if row.record is not None else ():
            where = row.label.replace(row.engine, names[row.engine], 1)
            lines.append(f"warning: {where}: {warning}")
    lines += [f"warning: {note}" for note in benched.notes]
    return lines + ([] if benched.baseline is None else _gate_lines(benched.baseline))


def _gate_lines(gate: BaselineResult) -> list[str]:
    verdict = "passed" if gate.passed else "FAILED"
    counts = f"{len(gate.comparisons)} compared, {len(gate.regressions)} slower than allowed"
    if gate.lost:
        counts += f", {len(gate.lost)} not run"
    return [*(f"not compared: {one}" for one in (*gate.lost, *gate.missing)), f"baseline {verdict}: {counts}"]
