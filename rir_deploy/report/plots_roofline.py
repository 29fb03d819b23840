"""The roofline: what each layer reaches over how much it does with a byte, under the roofs of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot
from rir_deploy.report.rows import WIDTH_IN
from rir_deploy.report.schema_roofline import RoofEngine, Roofline
from rir_deploy.report.series import frame, role, shape
from rir_deploy.report.svg import PAINTS, drawing, paint, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Room around the points, and what a page has colours for.
_AROUND = 1.6
_DASHES = ("-", "--", ":", "-.")


def roofline_plots(roofline: Roofline) -> list[Plot]:
    """A plot for every batch size that has an engine."""
    batches = sorted({one.batch for one in roofline.engines})
    return [_plot(roofline, batch) for batch in batches]


def _plot(roofline: Roofline, batch: int) -> Plot:
    from matplotlib.figure import Figure

    engines = [one for one in roofline.engines if one.batch == batch]
    points = [_points(one) for one in engines]
    names = text.short_names([one.engine for one in roofline.engines])
    roofs = roofline.roofs()
    with drawing(f"roofline-{batch}"):
        figure = Figure(figsize=(WIDTH_IN, 3.4))
        figure.patch.set_visible(False)
        axes = figure.add_axes((0.14, 0.16, 0.83, 0.82))
        frame(axes)
        _scale(axes, [point for line in points for point in line], [one.gmac_per_s for one in roofs.values()])
        _roofs(axes, roofline)
        for index, line in enumerate(points):
            _dots(axes, line, index)
        axes.set_xlabel("multiply-adds a byte", color=paint("soft"))
        svg = to_svg(
            figure, f"Roofline at batch {batch}: " + "; ".join(_read_out(one, names[one.engine]) for one in engines)
        )
    legend = [
        Key(_colour(kind), "―", f"{kind}: {text.number(one.gmac_per_s, 0)} GMAC/s, {one.backend}")
        for kind, one in roofs.items()
    ]
    legend += [Key("soft", "╱", f"copies: {_copies(roofline)}")]
    legend += [Key(role(index), shape(index)[1], names[one.engine]) for index, one in enumerate(engines)]
    caption = (
        f"Roofline at batch {text.count(batch)}: GMAC/s over multiply-adds a byte (both logarithmic); "
        "a small mark a layer, a large one an engine"
    )
    return Plot(caption, svg, tuple(legend))


def _points(engine: RoofEngine) -> list[tuple[float, float]]:
    """The engine, and behind it the layers that its runtime has timed: multiply-adds a byte, GMAC/s."""
    whole = (engine.macs / max(engine.bytes, 1), engine.gmac_per_s)
    layers = [
        (layer.macs / layer.bytes, layer.macs / layer.measured_ms / 1e6)
        for layer in engine.layers
        if layer.measured_ms and layer.bytes and layer.macs
    ]
    return [whole, *layers]


def _scale(axes: Axes, points: Sequence[tuple[float, float]], tops: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    xs = [x for x, _ in points if x > 0] or [1.0]
    ys = [*(y for _, y in points if y > 0), *(top for top in tops if top > 0)] or [1.0]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(xs) / _AROUND, max(xs) * _AROUND)
    axes.set_ylim(min(ys) / _AROUND, max(ys) * _AROUND)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _roofs(axes: Axes, roofline: Roofline) -> None:
    """The slopes of the copies up to the highest roof, and of each roof the part to the right of the fastest copy."""
    low, high = axes.get_xlim()
    roofs = roofline.roofs()
    top = max((one.gmac_per_s for one in roofs.values()), default=1.0)
    widths = [one.gb_per_s for one in roofline.copies if one.gb_per_s > 0]
    for index, width in enumerate(sorted(widths, reverse=True)):
        style = _DASHES[index % len(_DASHES)]
        ends = (low, min(high, top / width))
        if ends[1] > low:
            axes.plot(ends, [width * x for x in ends], color=paint("soft"), lw=1.0, ls=style, zorder=1)
    for kind, one in roofs.items():
        start = max(low, one.gmac_per_s / max(widths)) if widths else low
        if start < high:
            axes.plot((start, high), [one.gmac_per_s] * 2, color=paint(_colour(kind)), lw=1.6, zorder=1)


def _dots(axes: Axes, points: Sequence[tuple[float, float]], index: int) -> None:
    kind, colour = shape(index)[0], paint(role(index))
    for place, (x, y) in enumerate(points):
        size = 4 if place else 9
        face = colour if place else "none"
        axes.plot([x], [y], marker=kind, ms=size, mfc=face, mec=colour, mew=1.2, ls="none", zorder=3)


def _colour(precision: str) -> str:
    return precision if precision in PAINTS else "other"


def _copies(roofline: Roofline) -> str:
    fastest = sorted(roofline.copies, key=lambda one: -one.gb_per_s)
    return ", ".join(f"{text.number(one.gb_per_s, 0)} GB/s of {text.size(one.working_set_bytes)}" for one in fastest)


def _read_out(engine: RoofEngine, name: str) -> str:
    return f"{name} {text.number(engine.gmac_per_s, 1)} GMAC/s, {text.percent(engine.share, 1)} of the ceiling"
