"""Tables on latency: the rows of the bench, how it was measured, and what makes a figure doubtful."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema_engine import SYNCHRONOUS, Bench, BenchResult
from rir_deploy.report.table import Cell, Table, columns

_EAGER = "pytorch"
_TIMES = ("median", "p90", "p95", "p99", "max")


Key = tuple[str, str, str, int]


def key_of(result: BenchResult) -> Key:
    """What tells a row from others of its batch size."""
    return result.engine, result.backend, result.mode, result.streams or 1


def labels(bench: Bench) -> dict[Key, str]:
    """The short name of every row; a checkpoint's is that it ran in PyTorch. How it ran is said where it is special."""
    names = text.short_names([result.engine for result in bench.results])
    eager = [result.engine for result in bench.results if is_eager(result)]
    several = len(set(eager)) > 1
    found = {}
    for result in bench.results:
        label = names[result.engine]
        if is_eager(result):
            layout = result.backend.removeprefix(_EAGER).strip("-").replace("-", " ")
            label = " ".join(["PyTorch eager", *([f"({layout})"] if layout else []), *([label] if several else [])])
        streams = f"{text.plural(result.streams, 'stream')}" if result.streams and result.streams > 1 else ""
        how = [word for word in ("" if result.mode == SYNCHRONOUS else result.mode, streams) if word]
        found[key_of(result)] = f"{label} ({', '.join(how)})" if how else label
    return found


def is_eager(result: BenchResult) -> bool:
    return result.backend.startswith(_EAGER)


def latency_table(bench: Bench) -> Table:
    """One row an engine and batch size; times in ms."""
    titles = columns(
        "engine",
        "backend",
        "precision",
        ">batch",
        ">median (ms)",
        ">p90 (ms)",
        ">p95 (ms)",
        ">p99 (ms)",
        ">max (ms)",
        ">images/s",
        ">speed-up",
    )
    names = labels(bench)
    rows = tuple(_row(result, names[key_of(result)]) for result in bench.results)
    return Table("latency", f"Latency of one call{_over(bench)}", titles, rows, wide=True)


def _row(result: BenchResult, label: str) -> tuple[Cell, ...]:
    latency = result.latency_ms
    times = [None] * 5 if latency is None else [getattr(latency, name) for name in _TIMES]
    return (
        Cell(label, "not run" if latency is None else "", title=result.engine),
        Cell(result.backend),
        Cell(result.precision),
        Cell(text.count(result.batch)),
        *(Cell(text.ms(time)) for time in times),
        Cell(text.number(result.throughput_per_s, 0)),
        Cell(text.NONE if result.speedup is None else f"{text.number(result.speedup, 2)}×"),
    )


def _over(bench: Bench) -> str:
    """What the speed-ups are over: the first row of each batch size that ran."""
    if all(result.speedup is None for result in bench.results):
        return ""
    names = labels(bench)
    first: dict[int, str] = {}
    for result in bench.results:
        if result.latency_ms is not None:
            first.setdefault(result.batch, names[key_of(result)])
    distinct = set(first.values())
    return f"; speed-up by median over {distinct.pop() if len(distinct) == 1 else 'the first row of the batch size'}"


def load_table(bench: Bench) -> Table | None:
    """What it costs to start: load, first inference, memory; None where none of it was measured."""
    keys = ("load_ms", "first_inference_ms", "peak_memory_mb")
    rows = [one for one in bench.results if any(getattr(one, key) is not None for key in keys)]
    if not rows:
        return None
    names = labels(bench)
    titles = columns("engine", ">batch", ">load (ms)", ">first inference (ms)", ">peak memory (MB)")
    cells = tuple(
        (
            Cell(names[key_of(one)], title=one.engine),
            Cell(text.count(one.batch)),
            *(Cell(text.number(getattr(one, key), 1)) for key in keys),
        )
        for one in rows
    )
    return Table("load", "Before the first answer", titles, cells, wide=True)


def settings_table(bench: Bench) -> Table:
    """How it was measured, by the bench's own names."""
    rows = tuple((Cell(text.setting(key)), Cell(text.words(value))) for key, value in bench.settings.items())
    return Table("settings", "Settings of the bench", columns("setting", "value"), rows)


def doubts(bench: Bench) -> list[str]:
    """What to be wary of, a sentence each."""
    names = labels(bench)
    rows = [
        f"{names[key_of(result)]} at batch {result.batch}: {'; '.join(result.warnings)}"
        for result in bench.results
        if result.warnings
    ]
    return [*bench.notes, *rows]
