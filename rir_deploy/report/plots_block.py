"""One block drawn as a graph, as it was traced and as it was folded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rir_deploy.report import text
from rir_deploy.report.layered import Layout, lay_out
from rir_deploy.report.plots import Key, Plot
from rir_deploy.report.rows import WIDTH_IN
from rir_deploy.report.schema_stage import Block, Node
from rir_deploy.report.svg import drawing, paint, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches of a layer, a box and a line in it; a graph of fewer columns than these is drawn as if it had them.
_LAYER_IN, _BOX_IN, _LINE_IN, _COLUMNS = 0.62, 0.44, 0.125, 5
_PT, _SMALL_PT = 7.5, 6.5
# Letters an inch at those sizes.
_LETTERS, _SMALL_LETTERS = 16.0, 18.0
_CENTRE: dict[str, Any] = {"ha": "center", "va": "center"}
_ROLES = {"residual": "series0", "transient": "series1"}
_SHORT = {"BatchNormalization": "BatchNorm", "GlobalAveragePool": "GlobalAvgPool"}


def block_plots(block: Block | None) -> tuple[Plot, ...]:
    """The block before and after; nothing where there is none to draw, or where nodes cannot be told apart by name."""
    if block is None or any(len({node.name for node in nodes}) < len(nodes) for nodes in (block.before, block.after)):
        return ()
    before, after = _draw(block.before, "before"), _draw(block.after, "after")
    counts = [text.plural(sum(not _is_end(node) for node in nodes), "node") for nodes in (block.before, block.after)]
    streams = {node.stream for node in block.before}
    legend = tuple(Key(_ROLES[name], "■", f"{name} stream") for name in ("residual", "transient") if name in streams)
    return (
        Plot(f"The block {block.block} as it was traced: {counts[0]}", before, legend),
        Plot(f"The same block folded: {counts[1]}", after),
    )


def _draw(nodes: tuple[Node, ...], name: str) -> str:
    from matplotlib.figure import Figure

    layout = lay_out({node.name: node.inputs for node in nodes})
    columns = max(layout.width + 1, _COLUMNS)
    with drawing(f"block-{name}"):
        height = _LAYER_IN * layout.depth
        figure = Figure(figsize=(WIDTH_IN, height))
        figure.patch.set_visible(False)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        spare = (columns - layout.width - 1) / 2
        axes.set_xlim(-0.5 - spare, layout.width + 0.5 + spare)
        axes.set_ylim(layout.depth, 0)
        _edges(axes, layout)
        for node in nodes:
            _node(axes, node, layout, WIDTH_IN / columns)
        return to_svg(figure, f"{name} the fold: {'; '.join(map(_read_out, nodes))}")


def _edges(axes: Axes, layout: Layout) -> None:
    """Lines between boxes, with an arrowhead at the end."""
    half = _BOX_IN / _LAYER_IN / 2
    for corners in layout.edges:
        points = [(x, layer + 0.5) for x, layer in corners]
        points[0] = (points[0][0], points[0][1] + half)
        points[-1] = (points[-1][0], points[-1][1] - half)
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=paint("soft"), lw=0.9, zorder=1)
        axes.plot(
            [xs[-1]], [ys[-1] - 0.05], marker="v", ls="none", ms=3.2, mfc=paint("soft"), mec=paint("soft"), zorder=1
        )


def _node(axes: Axes, node: Node, layout: Layout, column_in: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, layer = layout.places[node.name]
    y, wide, high = layer + 0.5, 0.9, _BOX_IN / _LAYER_IN
    room = wide * column_in
    if _is_end(node):
        axes.text(x, y, text.shorten(node.detail, int(room * _LETTERS)), color=paint("soft"), size=_PT, **_CENTRE)
        return
    edge = paint(_ROLES.get(node.stream or "", "after"))
    box = FancyBboxPatch(
        (x - wide / 2, y - high / 2),
        wide,
        high,
        boxstyle="round,pad=0,rounding_size=0.06",
        mutation_aspect=column_in / _LAYER_IN,
        fc=paint("card"),
        ec=edge,
        lw=1.2,
        zorder=2,
    )
    axes.add_patch(box)
    words = [_SHORT.get(node.op, node.op), *filter(None, node.detail.split(", "))]
    for index, line in enumerate(words):
        at = y + (index - (len(words) - 1) / 2) * _LINE_IN / _LAYER_IN
        size, letters = (_SMALL_PT, _SMALL_LETTERS) if index else (_PT, _LETTERS)
        colour = paint("soft" if index else "ink")
        axes.text(x, at, text.shorten(line, int(room * letters)), size=size, color=colour, zorder=3, **_CENTRE)


def _is_end(node: Node) -> bool:
    """What the block reads or gives, which is no node of it."""
    return node.op in ("input", "output")


def _read_out(node: Node) -> str:
    if node.op == "input":
        return f"reads {node.detail}"
    if node.op == "output":
        return f"gives {node.detail}"
    return f"{node.op} {node.detail}".strip()
