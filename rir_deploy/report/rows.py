"""Figures made of rows: a name and a value in words on one line, the mark beneath; narrow enough for a phone.

Since every value is written out, no axis has to be read, and long names have the whole width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rir_deploy.report.svg import paint
from rir_deploy.report.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, ROW_IN, AXIS_IN = 4.3, 0.43, 0.4
# Where the words and the mark of a row are, as shares of its height.
WORDS_AT, MARK_AT = 0.42, 0.74
BAR_HEIGHT = 0.3
# The same where rows have notes, and are higher for it.
NOTED_ROW_IN, NOTED_AT, NOTE_AT, UNDER_NOTE_AT, LOW_BAR = 0.48, 0.28, 0.61, 0.77, 0.12
_NOTE_PT = 8.0
# Letters of a row's two ends together, and of its note.
_LINE, _NOTE = 48, 58
# Over this ratio of the largest to the smallest value, an axis is logarithmic.
_LINEAR = 20.0


@dataclass(frozen=True)
class Row:
    """A row's words: its name, its value at the other end, and a smaller note beneath the name."""

    name: str
    value: str
    note: str = ""


def row_axes(rows: Sequence[Row], *, axis: bool) -> tuple[Figure, Axes]:
    """A figure with the words of all rows; row i takes y from i to i + 1. ``axis``: leave room for one below.

    Where a row has a note, marks go to `UNDER_NOTE_AT`.
    """
    from matplotlib.figure import Figure

    below = AXIS_IN if axis else 0.02
    noted = any(row.note for row in rows)
    height = (NOTED_ROW_IN if noted else ROW_IN) * len(rows) + below
    figure = Figure(figsize=(WIDTH_IN, height))
    figure.patch.set_visible(False)
    margin = 0.05 if axis else 0.0
    axes = figure.add_axes((margin, below / height, 1 - 2 * margin, 1 - below / height))
    axes.patch.set_visible(False)
    axes.set_ylim(max(len(rows), 1), 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=axis, labelcolor=paint("soft"))
    across = axes.get_yaxis_transform()
    inset = margin / (1 - 2 * margin)  # words begin at the figure's edge, not at the axis
    for index, row in enumerate(rows):
        y = index + (NOTED_AT if noted else WORDS_AT)
        axes.text(-inset, y, shorten(row.name, _LINE - len(row.value)), transform=across)
        axes.text(1 + inset, y, row.value, ha="right", transform=across, color=paint("soft"))
        if row.note:
            note = shorten(row.note, _NOTE)
            axes.text(-inset, index + NOTE_AT, note, transform=across, color=paint("soft"), size=_NOTE_PT)
    return figure, axes


def bar(axes: Axes, index: int, value: float, role: str, *, at: float = MARK_AT, height: float = BAR_HEIGHT) -> None:
    """A bar of ``value`` in row ``index``."""
    axes.barh(index + at, value, height, color=paint(role), clip_on=False)


def tracks(axes: Axes, count: int) -> None:
    """A faint line under the marks of each of ``count`` rows."""
    for index in range(count):
        axes.plot((0, 1), [index + MARK_AT] * 2, color=paint("line"), lw=0.8, transform=axes.get_yaxis_transform())


def dot(axes: Axes, index: int, value: float, role: str, *, hollow: bool = False) -> None:
    """A dot at ``value`` in row ``index``; a hollow one is a ring."""
    face = "none" if hollow else paint(role)
    size = 7.5 if hollow else 6
    style = {"marker": "o", "ms": size, "mfc": face, "mec": paint(role), "mew": 1.3, "ls": "none"}
    axes.plot([value], [index + MARK_AT], clip_on=False, zorder=3, **style)  # type: ignore[arg-type]


def span(axes: Axes, index: int, low: float, high: float, role: str) -> None:
    """A line from ``low`` to ``high`` in row ``index``."""
    axes.plot((low, high), [index + MARK_AT] * 2, color=paint(role), lw=1.4, clip_on=False)


def tick(axes: Axes, index: int, value: float, role: str) -> None:
    """A short upright line at ``value`` in row ``index``."""
    y = index + MARK_AT
    axes.plot((value, value), (y - 0.13, y + 0.13), color=paint(role), lw=1.4, clip_on=False)


def scale(axes: Axes, values: Sequence[float], which: str = "x", *, share: bool = False) -> bool:
    """Fit an axis to ``values``: from zero, or logarithmic with ticks at 1, 2, 5 where they are far apart. ``share``:
    they are shares, written in per cent.

    Returns:
        Whether it is logarithmic.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    limits, part = getattr(axes, f"set_{which}lim"), getattr(axes, f"{which}axis")
    logarithmic = high / low > _LINEAR
    if logarithmic:
        getattr(axes, f"set_{which}scale")("log")
        limits(low / 1.15, high * 1.15)
        part.set_major_locator(FixedLocator(_round_numbers(low, high)))
        part.set_minor_locator(NullLocator())
    else:
        limits(0, high * 1.04)
        part.set_major_locator(MaxNLocator(5))
    words = (lambda value, _: f"{100 * value:g} %") if share else (lambda value, _: f"{value:,g}")
    part.set_major_formatter(FuncFormatter(words))
    return logarithmic


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between the bounds; powers of ten alone where those would be too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(found) <= 7:
            return found
    return found[:: math.ceil(len(found) / 7)]
