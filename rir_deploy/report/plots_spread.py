"""The plot of how calls spread: a row an engine, the share of its calls over their time as a multiple of its median."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rir_deploy.report import text
from rir_deploy.report.plots import Plot, read_out, role_of, row_keys
from rir_deploy.report.rows import BAR_HEIGHT, MARK_AT, Row, row_axes
from rir_deploy.report.schema_bench import Bench, BenchResult
from rir_deploy.report.svg import drawing, paint, to_svg
from rir_deploy.report.tables_bench import key_of, labels, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Multiples of the median that are drawn at most, and steps across them.
_SLOWEST, _STEPS = 2.0, 80
# The axis ends where all but this share of every engine's calls are.
_TAIL = 0.05


def spread_plot(bench: Bench, batch: int) -> Plot | None:
    """Of one call after another at a batch size; None where no distribution was recorded."""
    from matplotlib.ticker import MaxNLocator

    names = labels(bench)
    shown = [one for one in split(bench)[0] if one.batch == batch and one.latency_ms and len(one.quantiles_ms) > 1]
    if not shown:
        return None
    shares = [_shares(one) for one in shown]
    low = max(min(share[0] for share in shares), 0.0)
    high = min(max(max(_at(share, 1 - _TAIL) for share in shares), 1.05), _SLOWEST)
    rows = [Row(names[key_of(one)], _words(share)) for one, share in zip(shown, shares, strict=True)]
    with drawing(f"spread-{batch}"):
        figure, axes = row_axes(rows, axis=True)
        axes.set_xlim(low - 0.02 * (high - low), high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        for index, (one, share) in enumerate(zip(shown, shares, strict=True)):
            _draw(axes, index, histogram(share, low, high), _edges(low, high), role_of(one))
        svg = to_svg(figure, f"How calls spread at batch {batch}: {read_out(rows)}")
    caption = (
        f"How the calls spread at batch {text.count(batch)}: how many over their time, as multiples of the engine's "
        "median; slower ones than the right edge are not drawn"
    )
    return Plot(caption, svg, row_keys(shown, "■"))


def _shares(result: BenchResult) -> list[float]:
    """The quantiles over the median."""
    ordered = sorted(result.quantiles_ms)
    middle = ordered[len(ordered) // 2] or 1.0
    return [value / middle for value in ordered]


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(round(share * (len(ordered) - 1)), len(ordered) - 1)]


def _words(shares: Sequence[float]) -> str:
    return f"half within {text.percent(_at(shares, 0.75) - _at(shares, 0.25), 1)}"


def _edges(low: float, high: float) -> list[float]:
    return [low + (high - low) * step / _STEPS for step in range(_STEPS + 1)]


def histogram(shares: Sequence[float], low: float, high: float) -> list[float]:
    """Calls in each of equal steps from ``low`` to ``high``, evenly spread between two quantiles."""
    below = [_below(shares, edge) for edge in _edges(low, high)]
    # What is no slower than the left edge is the fastest call itself.
    below[0] = 0.0
    return [after - before for before, after in pairwise(below)]


def _below(shares: Sequence[float], edge: float) -> float:
    """The share of calls that take no longer than ``edge``."""
    intervals, total = len(shares) - 1, 0.0
    for first, second in pairwise(shares):
        if second <= edge:
            total += 1
        elif first < edge:
            total += (edge - first) / (second - first)
    return total / intervals


def _draw(axes: Axes, index: int, counts: Sequence[float], edges: Sequence[float], role: str) -> None:
    """Filled steps on the row's line, the highest as high as a bar."""
    base = index + MARK_AT + BAR_HEIGHT / 2
    largest = max(counts) or 1.0
    tops = [base - 1.2 * BAR_HEIGHT * count / largest for count in counts]
    axes.stairs(tops, edges, baseline=base, fill=True, color=paint(role), lw=0)
    axes.plot((0, 1), [base] * 2, color=paint("line"), lw=0.8, transform=axes.get_yaxis_transform())
