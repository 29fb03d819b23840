"""What plots with a line a series share: frames, colours and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rir_deploy.report.svg import SERIES, paint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A shape a series, as matplotlib and as a legend write it.
_MARKS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))


def role(index: int) -> str:
    return f"series{index % SERIES}"


def shape(index: int) -> tuple[str, str]:
    """Shifted by one after each turn of the colours, so that a colour comes back with another shape."""
    return _MARKS[(index + index // SERIES) % len(_MARKS)]


def frame(axes: Axes) -> None:
    """Two axes and lines across, in the page's colours."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(paint("line"))
    axes.tick_params(color=paint("line"), labelcolor=paint("soft"))
    axes.grid(axis="y", color=paint("line"), lw=0.6)
