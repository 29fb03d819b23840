"""Tables on the model: where it comes from, what the fold did, the graphs made from it."""

from __future__ import annotations

from collections.abc import Iterable

from rir_deploy.report import text
from rir_deploy.report.schema import Calibration, Change, Check, Fold, Run
from rir_deploy.report.schema_engine import Kept
from rir_deploy.report.schema_graph import Graph
from rir_deploy.report.table import Cell, Table, columns, facts

# The counts of a fold, in the order shown: key, what it is called, whether it counts bytes.
_COUNTS = (
    ("convs", "convolutions", False),
    ("nodes", "nodes", False),
    ("macs", "multiply-adds an image", False),
    ("params", "parameters", False),
    ("weight_bytes", "weights", True),
)


def model_table(run: Run) -> Table:
    """What the run began with, as name and value."""
    model, export = run.model, run.export
    rows = [
        ("checkpoint", Cell(model.checkpoint)),
        ("sha256", Cell(text.short_hash(model.sha256), title=model.sha256)),
        ("layout", Cell(model.layout)),
        ("parameters", Cell(text.count(model.parameters))),
        ("top-1 recorded by the training", Cell(text.percent(model.recorded_top1))),
        ("recipe", Cell(run.recipe)),
        ("images of the parity proof", Cell(text.file_name(run.data))),
        ("ONNX opset", Cell(str(export.opset))),
        ("export", Cell(f"{text.number(export.seconds, 1)} s")),
        ("exported graph against PyTorch", _check(export.check)),
        ("calibration", Cell(_calibration(run.calibration))),
    ]
    return facts("model", "Model and recipe", rows)


def _check(check: Check | None) -> Cell:
    if check is None:
        return Cell("left out", tone="muted")
    note = f"{check.on}: agreement {text.percent(check.agreement)}, largest error {text.error(check.max_abs_error)}"
    return Cell("passed", note, tone="good") if check.passed else Cell("failed", note, tone="bad")


def _calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return "none: no graph needed it"
    return f"{text.plural(calibration.images, 'image')} of {calibration.data}, {calibration.method}"


def fold_table(fold: Fold) -> Table:
    """The counts before the fold and after it."""
    rows = []
    for key, title, is_bytes in _COUNTS:
        change: Change = getattr(fold, key)
        write = text.size if is_bytes else text.count
        rows.append((Cell(title), Cell(write(change.before)), Cell(write(change.after)), _change(change)))
    caption = "Before the fold and after it" if fold.modified else "The fold left the graph as it was"
    return Table("fold", caption, columns("count", ">before", ">after", ">change"), tuple(rows))


def _change(change: Change) -> Cell:
    if not change.before:
        return Cell(text.NONE)
    return Cell(f"{text.number(100 * (change.after - change.before) / change.before, 1)} %")


def kept_tables(run: Run) -> list[Table]:
    """What was left as it is, and why: by the fold, and by each graph's precision."""
    tables = []
    if run.export.fold is not None and run.export.fold.refused:
        rows = _by_reason("fold", run.export.fold.refused)
        tables.append(
            Table("refused", "What the fold left alone", columns("by", "reason", ">nodes", "names"), rows, True)
        )
    kept = [row for graph in run.all_graphs for row in _by_reason(graph.name, graph.kept)]
    if kept:
        caption = "Nodes kept in FP32"
        tables.append(Table("kept", caption, columns("graph", "reason", ">nodes", "names"), tuple(kept), wide=True))
    return tables


def _by_reason(name: str, kept: Iterable[Kept]) -> tuple[tuple[Cell, ...], ...]:
    reasons: dict[str, list[str]] = {}
    for one in kept:
        reasons.setdefault(one.reason, []).append(one.node)
    return tuple(
        (Cell(name), Cell(reason), Cell(text.count(len(nodes))), Cell(", ".join(nodes)))
        for reason, nodes in reasons.items()
    )


def graphs_table(graphs: tuple[Graph, ...]) -> Table:
    """The graphs with their sizes."""
    titles = columns("graph", "precision", "flavour", ">size", ">kept in FP32", "file", "sha256")
    rows = tuple(
        (
            Cell(graph.name),
            Cell(graph.precision),
            Cell(graph.flavour or text.NONE),
            Cell(text.size(graph.size_bytes)),
            Cell(text.count(len(graph.kept))),
            Cell(graph.file),
            Cell(text.short_hash(graph.sha256), title=graph.sha256),
        )
        for graph in graphs
    )
    return Table("graphs", "ONNX graphs", titles, rows, wide=True)
