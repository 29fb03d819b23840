"""Tables on INT8: the ways to quantise that were measured, its layers, and the folded network against the unfolded."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.pairs import Contestant, Pair, Winner, find_pairs
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_graph import Candidate, Graph, Layer, Sensitivity
from rir_deploy.report.table import Cell, Table, columns
from rir_deploy.report.tables_engine import parity


def candidates_table(graph: Graph) -> Table | None:
    """The ways to quantise a graph, best first; None where it was not calibrated."""
    choice = graph.calibration
    if choice is None:
        return None
    chosen = Candidate(choice.method, choice.rounding, choice.equalized, choice.sqnr_db)
    rows = choice.candidates or (chosen,)
    titles = columns("ranges by", "weights by", "equalised", ">SQNR (dB)", "choice")
    cells = tuple(
        (
            Cell(one.method),
            Cell(one.rounding),
            Cell("yes" if one.equalized else "no"),
            Cell(text.number(one.sqnr_db, 1)),
            Cell("taken", tone="good") if one == chosen else Cell(""),
        )
        for one in rows
    )
    how = "" if choice.sqnr_db is None else ", by the SQNR on those held back"
    caption = f"{graph.name}: ways to quantise, on {text.plural(choice.images, 'image')}{how}"
    return Table(f"candidates-{graph.name}", caption, titles, cells, wide=True)


def ranking_table(graph: Graph, limit: int | None = None) -> Table | None:
    """The ``limit`` layers that hurt most when quantised alone, or all; None where they were not ranked."""
    found = graph.sensitivity
    if found is None:
        return None
    rows = tuple(
        (
            Cell(layer.node),
            Cell(place(layer)),
            Cell(damage(layer)),
            Cell(becomes(layer)),
            Cell(", ".join(layer.members) or text.NONE),
        )
        for layer in found.layers[:limit]
    )
    titles = columns("node", "block", ">SQNR", "becomes", "computes")
    kept = f"; in float: {budget(found)}" if budget(found) else ""
    return Table(
        f"ranking-{graph.name}", f"{ranking_caption(graph.name, found)}{kept}", titles, rows, True, folded=True
    )


def damage(layer: Layer) -> str:
    """What quantising a layer alone leaves of the output, in words."""
    return "no error" if layer.sqnr_db is None else f"{text.number(layer.sqnr_db, 1)} dB"


def place(layer: Layer) -> str:
    """The block of a layer, and its stream where it is in one alone."""
    return " ".join(part for part in (layer.block, layer.stream) if part) or text.NONE


def becomes(layer: Layer) -> str:
    return "float" if layer.kept else "INT8"


def ranking_caption(name: str, found: Sensitivity) -> str:
    return f"{name}: each layer quantised alone, on {text.plural(found.images, 'image')}"


def budget(found: Sensitivity) -> str:
    """How many layers stay in float, and for what; nothing where there was no budget."""
    if found.max_drop is None or found.drop is None:
        return ""
    kept = f"{sum(layer.kept for layer in found.layers)} of {len(found.layers)}"
    lost = f"{text.points(100 * found.drop)} of at most {text.points(found.max_drop)} points of top-1 are lost"
    if found.drop_test is not None:
        lost += f" (95 % interval {' to '.join(map(text.points, found.drop_test.interval))})"
    return f"{kept}, so that {lost}"


def pairs_table(run: Run) -> Table | None:
    """Folded against unfolded, two rows a backend; None where there is nothing to compare."""
    found = find_pairs(run)
    if not found:
        return None
    batches = sorted({pair.batch for pair in found if pair.batch is not None})
    sizes = "" if not batches else f" at batch {text.count(batches[0])}" if len(batches) == 1 else ", smallest batch"
    titles = columns(
        "INT8 engine",
        "network",
        ">agreement",
        ">SQNR (dB)",
        ">top-1",
        f">median (ms){sizes}",
        ">size",
        ">kept in float",
        "better at",
        "parity",
    )
    rows = tuple(_row(pair, one, which) for pair in found for one, which in _sides(pair))
    caption = "INT8 of the folded network against that of the unfolded; a difference within chance or noise is level"
    return Table("pairs", caption, titles, rows, wide=True)


def _sides(pair: Pair) -> tuple[tuple[Contestant, Winner], ...]:
    return (pair.folded, "folded"), (pair.unfolded, "unfolded")


def _row(pair: Pair, one: Contestant, which: Winner) -> tuple[Cell, ...]:
    verify = one.engine.verify
    better = pair.won(which)
    level = f"level: {', '.join(pair.won('level'))}" if which == "folded" and pair.won("level") else ""
    return (
        Cell(one.engine.name),
        Cell(which),
        Cell(text.NONE if verify is None else text.percent(verify.agreement)),
        Cell(text.NONE if verify is None else "equal" if verify.max_abs_error == 0 else text.number(verify.sqnr_db, 1)),
        Cell(text.NONE if verify is None else text.percent(verify.candidate.top1)),
        Cell(text.ms(one.latency_ms)),
        _size(pair, one),
        Cell(text.NONE if one.graph is None else text.count(len(one.graph.kept))),
        Cell(", ".join(better) or text.NONE, level, tone="good" if better else ""),
        parity(one.engine),
    )


def _size(pair: Pair, one: Contestant) -> Cell:
    if one.size_bytes is None:
        return Cell(text.NONE)
    return Cell(text.size(one.size_bytes), "the graph" if pair.sizes_of == "graph" else "")
