"""Tables on where losses enter: stage by stage, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

from rir_deploy.report import text
from rir_deploy.report.schema_stage import Figures, LayerErrors, LayerRow, Stage, Stages
from rir_deploy.report.table import Cell, Table, Tone, columns

_TONES: dict[str, Tone] = {"diverges": "bad", "differs": "muted", "follows": "", "ok": "good"}


def stages_table(stages: Stages) -> Table:
    """Every stage against PyTorch, and against the stage it was made from."""
    titles = columns(
        "stage",
        "made from",
        ">top-1",
        ">drop (points)",
        ">agreement",
        ">max error",
        ">SQNR (dB)",
        ">drop here",
        ">agreement here",
        ">SQNR here (dB)",
        "by its gate",
    )
    rows = tuple(_stage(stage) for stage in stages.rows)
    caption = f"Every stage on {text.plural(stages.images, 'image')}: against PyTorch, then against the stage before"
    return Table("stages", caption, titles, rows, wide=True)


def _stage(stage: Stage) -> tuple[Cell, ...]:
    whole, here = stage.against_pytorch, stage.against_parent
    return (
        Cell(stage.name, "simulation" if stage.simulation else "", title=stage.runs_on),
        Cell(stage.made_from or text.NONE),
        Cell(text.percent(stage.top1)),
        *_figures(whole),
        *(cell for index, cell in enumerate(_figures(here)) if index != 2),
        Cell("reference", tone="muted") if whole is None else _verdict(whole),
    )


def _figures(found: Figures | None) -> tuple[Cell, ...]:
    if found is None:
        return (Cell(text.NONE),) * 4
    return (
        Cell(text.points(found.top1_drop)),
        Cell(text.percent(found.agreement)),
        Cell(text.error(found.max_abs_error)),
        Cell(decibels(found.sqnr_db, found.max_abs_error)),
    )


def _verdict(found: Figures) -> Cell:
    return Cell("passed", tone="good") if found.passed else Cell("failed", "; ".join(found.failures), tone="bad")


def errors_table(errors: LayerErrors) -> Table:
    """Every layer of a graph against the checkpoint's."""
    titles = columns(
        "node", "block", "stream", ">SQNR (dB)", ">max error", ">own SQNR (dB)", ">own error, of allowed", "verdict"
    )
    rows = tuple(_layer(row) for row in errors.rows)
    caption = f"{errors.graph}: its layers against the checkpoint's, on {text.plural(errors.images, 'image')}"
    return Table(f"errors-{errors.graph}", caption, titles, rows, wide=True, folded=True)


def _layer(row: LayerRow) -> tuple[Cell, ...]:
    return (
        Cell(row.node),
        Cell(row.block or text.NONE),
        Cell(row.stream or text.NONE),
        Cell(decibels(row.sqnr_db, row.max_abs_error)),
        Cell(text.error(row.max_abs_error)),
        Cell("no error" if row.own_sqnr_db is None and row.own_error == 0 else text.number(row.own_sqnr_db, 1)),
        Cell("not finite" if row.own_error is None else text.percent(row.own_error, 1)),
        Cell(row.verdict, tone=_TONES[row.verdict]),
    )


def divergences(layers: Iterable[LayerErrors]) -> Iterable[str]:
    """Where each graph first goes wrong, and which graphs could not be looked into; a sentence each."""
    for one in layers:
        if one.note:
            yield f"{one.graph}: {one.note}"
        row = one.divergence
        if row is not None:
            place = ", ".join(word for word in (row.block, row.stream) if word)
            where = f" ({place})" if place else ""
            yield f"{one.graph} diverges first at the node '{row.node}'{where}"


def decibels(sqnr_db: float | None, max_abs_error: float | None) -> str:
    return "equal" if max_abs_error == 0 else text.number(sqnr_db, 1)
