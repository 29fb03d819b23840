"""Tables of runs side by side."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.compare import Compared, Measure
from rir_deploy.report.schema import Run
from rir_deploy.report.summary import summarize
from rir_deploy.report.table import Cell, Column, Table, columns


def runs_table(compared: Compared) -> Table:
    """What each run is of."""
    titles = columns("run", "verdict", "checkpoint", "sha256", "recipe", "images", "machine", "made", "by")
    rows = tuple(_run(name, run) for name, run in zip(compared.names, compared.runs, strict=True))
    return Table("runs", "The runs", titles, rows, wide=True)


def _run(name: str, run: Run) -> tuple[Cell, ...]:
    passed = summarize(run).passed
    return (
        Cell(name),
        Cell("passed", tone="good") if passed else Cell("failed", tone="bad"),
        Cell(run.model.checkpoint),
        Cell(text.short_hash(run.model.sha256), title=run.model.sha256),
        Cell(run.recipe),
        Cell(text.file_name(run.data)),
        Cell((run.machine if run.bench is None else run.bench.machine).cpu),
        Cell(run.created),
        Cell(run.tool),
    )


def measures_table(compared: Compared) -> Table:
    """Every engine's figures, a column a run; later runs are judged against the first."""
    titles = (*columns("engine", "measure"), *(Column(name, numeric=True) for name in compared.names))
    rows = tuple(
        (Cell(one.engine), Cell(one.name), *(_value(one, index) for index in range(len(one.values))))
        for one in compared.measures
    )
    caption = f"Engine by engine, against {compared.names[0]}; a difference within chance or noise is level"
    return Table("measures", caption, titles, rows, wide=True)


def _value(one: Measure, index: int) -> Cell:
    better, words = one.better[index], one.words[index]
    if better is None:
        return Cell(words)
    if better == "level":
        return Cell(words, _note(one, index, "level"), tone="muted")
    if better == "first":
        return Cell(words, _note(one, index, "worse"), tone="bad")
    return Cell(words, _note(one, index, "better"), tone="good")


def _note(one: Measure, index: int, verdict: str) -> str:
    first, own = one.values[0], one.values[index]
    return verdict if first is None or own is None else f"{_change(one.name, first, own)}, {verdict}"


def _change(name: str, first: float, own: float) -> str:
    if name in ("top-1", "agreement"):
        return f"{100 * (own - first):+.2f} points"
    if name == "SQNR":
        return f"{own - first:+.1f} dB"
    return f"{100 * (own - first) / first:+.1f} %" if first else "from 0"
