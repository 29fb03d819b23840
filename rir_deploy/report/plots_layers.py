"""The plot of errors through the network: a line a graph, its layers from the input to the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot
from rir_deploy.report.rows import WIDTH_IN, scale
from rir_deploy.report.schema import Run
from rir_deploy.report.schema_stage import LayerErrors, LayerRow
from rir_deploy.report.series import frame, role, shape
from rir_deploy.report.svg import drawing, paint, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Letters of all names under the axis together.
_NAMES = 44
_LOWEST = 1e-9


def layers_plot(run: Run) -> Plot | None:
    """The error (rms) of every layer as a share of its tensor; None where no layers were compared.

    The graphs share an axis by block: within a block, a graph's layers are spread evenly.
    """
    from matplotlib.figure import Figure

    shown = [one for one in run.layers or () if one.rows]
    if not shown:
        return None
    blocks = _blocks(shown)
    lines = [_line(one, blocks) for one in shown]
    with drawing("layers"):
        figure = Figure(figsize=(WIDTH_IN, 3.2))
        figure.patch.set_visible(False)
        axes = figure.add_axes((0.17, 0.1, 0.8, 0.86))
        frame(axes)
        scale(axes, [y for line in lines for _, y in line], "y", share=True)
        axes.set_xlim(-0.2, len(blocks) + 0.2)
        _name(axes, blocks)
        for index, (one, line) in enumerate(zip(shown, lines, strict=True)):
            xs, ys = zip(*line, strict=True) if line else ((), ())
            axes.plot(xs, ys, color=paint(role(index)), marker=shape(index)[0], ms=3, lw=1.1, clip_on=False)
            _mark(axes, one, blocks)
        svg = to_svg(figure, "Error of every layer: " + "; ".join(map(_read_out, shown)))
    legend = [Key(role(index), shape(index)[1], one.graph) for index, one in enumerate(shown)]
    if any(one.divergence is not None for one in shown):
        legend.append(Key("bad", "✖", "the first layer that is wrong by its own doing"))
    images = max(one.images for one in shown)
    caption = (
        "Error (rms) of every layer as a share of its tensor, from the input to the output, on "
        f"{text.plural(images, 'image')} (logarithmic; a layer without error has no mark)"
    )
    return Plot(caption, svg, tuple(legend))


def _block(row: LayerRow) -> str:
    return row.block or "other"


def _blocks(layers: Sequence[LayerErrors]) -> dict[str, int]:
    """The place of each block; one that only a later graph has stands behind the one that it follows there."""
    order: list[str] = []
    for one in layers:
        at = 0
        for block in dict.fromkeys(map(_block, one.rows)):
            if block not in order:
                order.insert(at, block)
            at = order.index(block) + 1
    return {block: index for index, block in enumerate(order)}


def _places(one: LayerErrors, blocks: dict[str, int]) -> list[float]:
    """A place on the axis for every row."""
    counts = {block: sum(_block(row) == block for row in one.rows) for block in blocks}
    seen = dict.fromkeys(blocks, 0)
    places = []
    for row in one.rows:
        block = _block(row)
        places.append(blocks[block] + (seen[block] + 0.5) / counts[block])
        seen[block] += 1
    return places


def _line(one: LayerErrors, blocks: dict[str, int]) -> list[tuple[float, float]]:
    pairs = [(x, error(row)) for x, row in zip(_places(one, blocks), one.rows, strict=True)]
    return [(x, max(y, _LOWEST)) for x, y in pairs if y is not None]


def error(row: LayerRow) -> float | None:
    """Root mean square over root mean square; None where there is none, or no number for it."""
    return None if row.sqnr_db is None else 10.0 ** (-row.sqnr_db / 20.0)


def _mark(axes: Axes, one: LayerErrors, blocks: dict[str, int]) -> None:
    """A cross on the first layer that diverges."""
    if one.divergence is None:
        return
    index = one.rows.index(one.divergence)
    y = error(one.divergence)
    style = {"marker": "X", "ms": 9, "mfc": paint("bad"), "mec": paint("bad"), "ls": "none", "zorder": 4}
    axes.plot([_places(one, blocks)[index]], [y or _LOWEST], clip_on=False, **style)  # type: ignore[arg-type]


def _name(axes: Axes, blocks: dict[str, int]) -> None:
    """The names of some blocks, as many as there is room for."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    names = [text.shorten(block, 13) for block in blocks]
    width = max(map(len, names)) + 2
    step = -(-len(names) * width // _NAMES)
    shown = range(0, len(names), max(step, 1))
    axes.xaxis.set_major_locator(FixedLocator([index + 0.5 for index in shown]))
    axes.xaxis.set_major_formatter(FixedFormatter([names[index] for index in shown]))


def _read_out(one: LayerErrors) -> str:
    found = [value for row in one.rows if (value := error(row)) is not None]
    worst = "no error" if not found else f"at most {text.percent(max(found), 3)}"
    row = one.divergence
    return f"{one.graph} {worst}" + ("" if row is None else f", wrong first at {row.node}")
