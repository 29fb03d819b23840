"""The table on accuracy: what can be said of each engine's drop of top-1."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.plots_accuracy import interval
from rir_deploy.report.schema_engine import ClassRecall, Drop, Engine, Verify
from rir_deploy.report.table import Cell, Table, Tone, columns

# Classes of an engine in the table; the record has all.
_CLASSES = 10
_RECALL = columns(
    "engine", "class", ">images", ">recall reference", ">recall engine", ">drop (points)", ">interval", ">p"
)
_TONES: dict[str, Tone] = {"non-inferior": "good", "inferior": "bad", "undecided": "", "cannot be judged": "bad"}


def accuracy_table(engines: tuple[Engine, ...]) -> Table | None:
    """One row an engine with labelled images; None where there is none."""
    shown = [
        (engine, engine.verify, engine.verify.drop)
        for engine in engines
        if engine.verify is not None and engine.verify.drop is not None
    ]
    if not shown:
        return None
    titles = columns(
        "engine",
        ">images",
        ">top-1 reference",
        ">top-1 engine",
        ">right in the reference alone",
        ">right in the engine alone",
        ">drop (points)",
        ">95 % interval",
        ">McNemar's p",
        ">margin (points)",
        "the true drop is",
    )
    rows = tuple(_row(engine, verify, drop) for engine, verify, drop in shown)
    return Table("accuracy", "Is the loss of top-1 real, and is it under the margin?", titles, rows, wide=True)


def _row(engine: Engine, verify: Verify, drop: Drop) -> tuple[Cell, ...]:
    return (
        Cell(engine.name, "simulation" if verify.simulation else ""),
        Cell(text.count(verify.images)),
        Cell(text.percent(verify.reference.top1)),
        Cell(text.percent(verify.candidate.top1)),
        Cell(text.count(drop.lost)),
        Cell(text.count(drop.gained)),
        Cell(text.points(verify.top1_drop)),
        Cell(interval(drop)),
        Cell(f"{drop.mcnemar_p:.2g}"),
        Cell(f"{drop.margin:g}"),
        verdict(drop, verify.doubts),
    )


def worst_class_table(engines: tuple[Engine, ...]) -> Table | None:
    """The class of each engine that lost most recall; None where none lost any."""
    found = [(engine, engine.verify.worst_class) for engine in engines if engine.verify is not None]
    rows = [_recall_row(engine, worst) for engine, worst in found if worst is not None and worst.drop > 0]
    caption = "The class of each engine that lost most recall; intervals for all classes together"
    return Table("worst-class", caption, _RECALL, tuple(rows), wide=True) if rows else None


def recall_table(engines: tuple[Engine, ...]) -> Table | None:
    """The classes of each engine that lost most recall; None where there is none."""
    rows = [
        _recall_row(engine, one)
        for engine in engines
        if engine.verify is not None
        for one in sorted(engine.verify.classes, key=lambda one: (-one.drop, one.name))[:_CLASSES]
    ]
    caption = f"Recall by class: of each engine the {_CLASSES} that lost most; intervals for all classes together"
    return Table("recall", caption, _RECALL, tuple(rows), wide=True, folded=True) if rows else None


def _recall_row(engine: Engine, one: ClassRecall) -> tuple[Cell, ...]:
    return (
        Cell(engine.name),
        Cell(one.name),
        Cell(text.count(one.images)),
        Cell(text.percent(one.reference)),
        Cell(text.percent(one.candidate)),
        Cell(text.points(one.drop)),
        Cell(" to ".join(map(text.points, one.interval))),
        Cell(f"{one.p:.2g}"),
    )


def verdict(drop: Drop, doubts: tuple[str, ...] = ()) -> Cell:
    """Non-inferior: the whole interval is under the margin."""
    words = {
        "non-inferior": ("under the margin", "non-inferior"),
        "inferior": ("over the margin", "inferior"),
        "undecided": ("undecided", _needed(drop)),
        "cannot be judged": ("cannot be judged", "; ".join(doubts)),
    }
    return Cell(*words[drop.verdict], tone=_TONES[drop.verdict])


def _needed(drop: Drop) -> str:
    if drop.images_needed is None:
        return "no number of images would show it to be under the margin"
    return f"some {text.count(drop.images_needed)} images would decide"
