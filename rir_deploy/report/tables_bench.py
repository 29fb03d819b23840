"""Tables on latency: the rows of the bench, how it was measured, and what makes a figure doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rir_deploy.report import text
from rir_deploy.report.schema_bench import SYNCHRONOUS, Bench, BenchResult
from rir_deploy.report.table import Cell, Table, columns

_EAGER = "pytorch"
_TIMES = ("median", "p90", "p95", "p99", "max")
_HEAD, _TIMED = ("engine", "backend", "precision", ">batch"), tuple(f">{name} (ms)" for name in _TIMES)
_RATE = (">images/s", ">speed-up")


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


def split(bench: Bench) -> tuple[list[BenchResult], list[BenchResult]]:
    """The rows of one call after another, and those of several in flight, which are figures of another kind."""
    alone = [result for result in bench.results if result.mode == SYNCHRONOUS]
    return alone, [result for result in bench.results if result.mode != SYNCHRONOUS]


def latency_table(bench: Bench) -> Table | None:
    """One call after another: a row an engine and batch size, times in ms; None where none was timed so."""
    results, names = split(bench)[0], labels(bench)
    if not results:
        return None
    titles = columns(*_HEAD, *_TIMED, ">IQR (%)", *_RATE)
    rows = tuple((*_head(one, names[key_of(one)]), *_times(one), _spread(one), *_rate(one)) for one in results)
    caption = f"Latency of one call; IQR over the median{_over(results, names, 'median')}"
    return Table("latency", caption, titles, rows, wide=True)


def throughput_table(bench: Bench) -> Table | None:
    """Several calls in flight: images/s first, since the times are those under that load; None where none was."""
    results, names = split(bench)[1], labels(bench)
    if not results:
        return None
    titles = columns(*_HEAD, ">streams", *_RATE, *_TIMED)
    rows = tuple(
        (
            *_head(one, names[key_of(one)]),
            Cell(text.NONE if one.streams is None else text.count(one.streams)),
            *_rate(one),
            *_times(one),
        )
        for one in results
    )
    streams = {one.streams for one in results if one.streams is not None}
    flying = f"{text.count(streams.pop())} in flight" if len(streams) == 1 else "several in flight"
    caption = f"Throughput: {flying}; times are those of a call under that load{_over(results, names, 'images/s')}"
    return Table("throughput", caption, titles, rows, wide=True)


def _head(result: BenchResult, label: str) -> tuple[Cell, ...]:
    return (
        Cell(label, "not run" if result.latency_ms is None else "", title=result.engine),
        Cell(result.backend),
        Cell(result.precision),
        Cell(text.count(result.batch)),
    )


def _times(result: BenchResult) -> tuple[Cell, ...]:
    latency = result.latency_ms
    return tuple(Cell(text.ms(None if latency is None else getattr(latency, name))) for name in _TIMES)


def _spread(result: BenchResult) -> Cell:
    """How far apart the middle half of the calls is."""
    latency = result.latency_ms
    if latency is None or latency.iqr is None or latency.median == 0:
        return Cell(text.NONE)
    return Cell(text.number(100 * latency.iqr / latency.median, 1))


def _rate(result: BenchResult) -> tuple[Cell, ...]:
    speedup = text.NONE if result.speedup is None else f"{text.number(result.speedup, 2)}×"
    return Cell(text.number(result.throughput_per_s, 0)), Cell(speedup)


def _over(results: Sequence[BenchResult], names: Mapping[Key, str], by: str) -> str:
    """What the speed-ups of one mode are over: the first row of each batch size that ran."""
    if all(result.speedup is None for result in results):
        return ""
    first: dict[int, str] = {}
    for result in results:
        if result.latency_ms is not None:
            first.setdefault(result.batch, names[key_of(result)])
    distinct = set(first.values())
    return f"; speed-up by {by} over {distinct.pop() if len(distinct) == 1 else 'the first row of the batch size'}"


def load_table(bench: Bench) -> Table | None:
    """What it costs to start: import, load, first inference, memory; None where none of it was measured."""
    keys = ("import_ms", "load_ms", "first_inference_ms", "peak_memory_mb", "engine_memory_mb")
    rows = [one for one in bench.results if any(getattr(one, key) is not None for key in keys)]
    if not rows:
        return None
    names = labels(bench)
    figures = (">import (ms)", ">load (ms)", ">first inference (ms)", ">peak memory (MB)", ">of that the engine (MB)")
    titles = columns("engine", ">batch", *figures)
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
