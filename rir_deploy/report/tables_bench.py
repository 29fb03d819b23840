"""Tables on latency: the rows of the bench, how it was measured, and what makes a figure doubtful."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema_engine import Bench, BenchResult
from rir_deploy.report.table import Cell, Table, columns

_EAGER = "pytorch"


def labels(bench: Bench) -> dict[tuple[str, str], str]:
    """The short name of every row, by its engine and backend; a checkpoint's is that it ran in PyTorch."""
    names = text.short_names([result.engine for result in bench.results])
    eager = [result.engine for result in bench.results if is_eager(result)]
    several = len(set(eager)) > 1
    found = {}
    for result in bench.results:
        label = names[result.engine]
        if is_eager(result):
            layout = result.backend.removeprefix(_EAGER).strip("-").replace("-", " ")
            label = " ".join(["PyTorch eager", *([f"({layout})"] if layout else []), *([label] if several else [])])
        found[result.engine, result.backend] = label
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
        ">images/s",
        ">speed-up",
    )
    names = labels(bench)
    rows = tuple(_row(result, names[result.engine, result.backend]) for result in bench.results)
    return Table("latency", f"Latency of one call{_over(bench)}", titles, rows, wide=True)


def _row(result: BenchResult, label: str) -> tuple[Cell, ...]:
    latency = result.latency_ms
    times = [None] * 4 if latency is None else [latency.median, latency.p90, latency.p95, latency.p99]
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
            first.setdefault(result.batch, names[result.engine, result.backend])
    distinct = set(first.values())
    return f"; speed-up by median over {distinct.pop() if len(distinct) == 1 else 'the first row of the batch size'}"


def settings_table(bench: Bench) -> Table:
    """How it was measured, by the bench's own names."""
    rows = tuple((Cell(text.setting(key)), Cell(text.words(value))) for key, value in bench.settings.items())
    return Table("settings", "Settings of the bench", columns("setting", "value"), rows)


def doubts(bench: Bench) -> list[str]:
    """What to be wary of, a sentence each."""
    names = labels(bench)
    rows = [
        f"{names[result.engine, result.backend]} at batch {result.batch}: {'; '.join(result.warnings)}"
        for result in bench.results
        if result.warnings
    ]
    return [*bench.notes, *rows]
