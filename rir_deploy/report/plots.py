"""Plots on the model and the engines: what the fold did, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rir_deploy.report import text
from rir_deploy.report.rows import Row, bar, row_axes
from rir_deploy.report.schema import Fold, Run
from rir_deploy.report.schema_bench import BenchResult
from rir_deploy.report.svg import drawing, to_svg
from rir_deploy.report.tables_bench import is_eager

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Key:
    """A line of a legend: a mark in the colour of a role, and what it stands for."""

    role: str
    mark: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A drawn plot with its caption; ``svg`` is safe to put into a page as it is."""

    caption: str
    svg: str
    legend: tuple[Key, ...] = ()


def precision_keys(precisions: Sequence[str], mark: str) -> tuple[Key, ...]:
    """A legend of the precisions that occur; those of no known kind share one colour."""
    known = [Key(name, mark, name) for name in PRECISIONS if name in precisions]
    others = sorted(set(precisions) - set(PRECISIONS))
    return (*known, *([Key("other", mark, ", ".join(others))] if others else []))


def role_of(result: BenchResult) -> str:
    """The colour of a row of the bench: its precision's, and PyTorch's own."""
    return "ink" if is_eager(result) else result.precision


def row_keys(results: Sequence[BenchResult], mark: str) -> tuple[Key, ...]:
    """The legend of rows in the colours of `role_of`."""
    eager = (Key("ink", mark, "PyTorch eager"),) if any(map(is_eager, results)) else ()
    return (*eager, *precision_keys([one.precision for one in results if not is_eager(one)], mark))


def fold_plot(fold: Fold) -> Plot | None:
    """Nodes by operator, before the fold and after it, the most frequent first."""
    ops = fold.ops
    names = sorted({*ops.before, *ops.after}, key=lambda op: (-ops.before.get(op, 0), -ops.after.get(op, 0), op))
    if not names:
        return None
    pairs = [(ops.before.get(name, 0), ops.after.get(name, 0)) for name in names]
    rows = [Row(name, f"{old:,} → {new:,}") for name, (old, new) in zip(names, pairs, strict=True)]
    with drawing("fold"):
        figure, axes = row_axes(rows, axis=False)
        axes.set_xlim(0, max(1, *(value for pair in pairs for value in pair)))
        for index, (old, new) in enumerate(pairs):
            bar(axes, index, old, "before", at=0.63, height=0.19)
            bar(axes, index, new, "after", at=0.83, height=0.19)
        svg = to_svg(figure, "Nodes by operator before and after the fold: " + read_out(rows))
    return Plot("Nodes by operator", svg, (Key("before", "■", "before the fold"), Key("after", "■", "after it")))


def size_plot(run: Run) -> Plot | None:
    """Graphs and engines by size on one scale."""
    sizes = [(f"{graph.name} (graph)", graph.precision, graph.size_bytes) for graph in run.graphs]
    sizes += [(one.name, one.precision, one.size_bytes) for one in run.engines if one.size_bytes is not None]
    if not sizes:
        return None
    rows = [Row(name, text.size(size)) for name, _, size in sizes]
    with drawing("sizes"):
        figure, axes = row_axes(rows, axis=False)
        axes.set_xlim(0, max(1, *(size for _, _, size in sizes)))
        for index, (_, precision, size) in enumerate(sizes):
            bar(axes, index, size, precision)
        svg = to_svg(figure, "Sizes of graphs and engines: " + read_out(rows))
    return Plot("Size of graphs and engines", svg, precision_keys([precision for _, precision, _ in sizes], "■"))


def read_out(rows: Sequence[Row]) -> str:
    """The words of the rows, for those who do not see the figure."""
    return "; ".join(f"{row.name} {row.value}" for row in rows)
