"""Plots on accuracy: top-1 of both sides, and the drop with its interval against the margin."""

from __future__ import annotations

from collections.abc import Sequence

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot, precision_keys, read_out
from rir_deploy.report.rows import Row, dot, row_axes, span, tick, tracks
from rir_deploy.report.schema_engine import Drop, Engine, Verify
from rir_deploy.report.svg import drawing, to_svg


def accuracy_plot(engines: Sequence[Engine]) -> Plot | None:
    """Top-1 of each engine beside that of its reference; None where no images were labelled."""
    shown = [(engine, engine.verify) for engine in engines if engine.verify is not None]
    pairs = [
        (engine, verify, 100 * verify.reference.top1, 100 * verify.candidate.top1)
        for engine, verify in shown
        if verify.reference.top1 is not None and verify.candidate.top1 is not None
    ]
    if not pairs:
        return None
    rows = [_accuracy_row(engine, verify) for engine, verify, _, _ in pairs]
    values = [value for _, _, *both in pairs for value in both]
    margin = max(0.15 * (max(values) - min(values)), 0.2)
    with drawing("accuracy"):
        figure, axes = row_axes(rows, axis=True)
        axes.set_xlim(min(values) - margin, min(max(values) + margin, 100))
        tracks(axes, len(rows))
        for index, (engine, _, reference, candidate) in enumerate(pairs):
            span(axes, index, reference, candidate, engine.precision)
            dot(axes, index, reference, "ink", hollow=True)
            dot(axes, index, candidate, engine.precision)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        svg = to_svg(figure, "Top-1 of the reference and of each engine: " + read_out(rows))
    legend = (Key("ink", "○", "reference"), *precision_keys([engine.precision for engine, *_ in pairs], "●"))
    return Plot("Top-1 accuracy (the axis does not begin at zero)", svg, legend)


def _accuracy_row(engine: Engine, verify: Verify) -> Row:
    label = " (simulation)" if verify.simulation else ""
    reference, candidate = (text.percent(side.top1) for side in (verify.reference, verify.candidate))
    return Row(f"{engine.name}{label}", f"{reference.removesuffix(' %')} → {candidate}")


def drop_plot(engines: Sequence[Engine]) -> Plot | None:
    """The drop of top-1 of each engine with its 95 % interval, beside its margin; None without labels."""
    shown = [
        (engine, engine.verify, engine.verify.drop)
        for engine in engines
        if engine.verify is not None and engine.verify.drop is not None
    ]
    if not shown:
        return None
    rows = [_drop_row(engine, verify, drop) for engine, verify, drop in shown]
    bounds = [bound for _, _, drop in shown for bound in (*drop.interval, drop.margin, 0.0)]
    room = 0.04 * (max(bounds) - min(bounds)) or 0.1
    with drawing("drop"):
        figure, axes = row_axes(rows, axis=True)
        axes.set_xlim(min(bounds) - room, max(bounds) + room)
        tracks(axes, len(rows))
        for index, (engine, verify, drop) in enumerate(shown):
            span(axes, index, *drop.interval, engine.precision)
            tick(axes, index, 0.0, "soft")
            tick(axes, index, drop.margin, "ink")
            dot(axes, index, verify.top1_drop or 0.0, engine.precision)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        svg = to_svg(figure, "Drop of top-1 of each engine, with its 95 % interval, in points: " + read_out(rows))
    keys = precision_keys([engine.precision for engine, *_ in shown], "●")
    return Plot(
        "Drop of top-1 in points, with its paired 95 % interval",
        svg,
        (*keys, Key("ink", "❘", "the margin of the gate")),
    )


def _drop_row(engine: Engine, verify: Verify, drop: Drop) -> Row:
    return Row(engine.name, f"{text.points(verify.top1_drop)} ({interval(drop)})")


def interval(drop: Drop) -> str:
    """The bounds of a drop, in points."""
    return " to ".join(map(text.points, drop.interval))
