"""Plots on INT8: by how much each layer, quantised alone, disturbs the output."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot, read_out
from rir_deploy.report.rows import LOW_BAR, MARK_AT, UNDER_NOTE_AT, Row, bar, row_axes
from rir_deploy.report.schema_graph import Graph, Layer, Sensitivity
from rir_deploy.report.svg import drawing, to_svg
from rir_deploy.report.tables_int8 import budget, damage, ranking_caption

# Rows of a figure: a longer ranking becomes several, which stand side by side where the page is wide.
_ROWS = 24


def sensitivity_plots(graph: Graph) -> list[Plot]:
    """The ranking of a graph's layers, the worst first, on one scale; nothing where they were not ranked.

    A bar is as long as the error of the output is large: dB are written out, and have no zero to begin a bar at.
    """
    found = graph.sensitivity
    if found is None or not found.layers:
        return []
    layers, largest = found.layers, max(map(_error, found.layers))
    plots = []
    for start in range(0, len(layers), _ROWS):
        part = layers[start : start + _ROWS]
        place = "" if len(part) == len(layers) else f", {start + 1} to {start + len(part)} of {len(layers)}"
        caption = f"{ranking_caption(graph.name, found)}{place}"
        svg = _draw(f"{graph.name}-{start}", caption, part, largest)
        plots.append(Plot(caption, svg, _legend(found, part, largest)))
    return plots


def _draw(name: str, caption: str, layers: tuple[Layer, ...], largest: float) -> str:
    rows = [Row(layer.node, f"{damage(layer)}{', float' if layer.kept else ''}", _note(layer)) for layer in layers]
    at = UNDER_NOTE_AT if any(row.note for row in rows) else MARK_AT
    with drawing(f"sensitivity-{name}"):
        figure, axes = row_axes(rows, axis=False)
        axes.set_xlim(0, largest or 1.0)
        for index, layer in enumerate(layers):
            bar(axes, index, _error(layer), "fp32" if layer.kept else "int8", at=at, height=LOW_BAR)
        return to_svg(figure, f"{caption}: {read_out(rows)}")


def _legend(found: Sensitivity, shown: tuple[Layer, ...], largest: float) -> tuple[Key, ...]:
    """What the colours are, and how long the whole width is."""
    keys = [
        Key("int8", "■", f"becomes INT8; the whole width is an error (rms) of {text.percent(largest)} of the output")
    ]
    if any(layer.kept for layer in shown):
        keys.append(Key("fp32", "■", f"stays in float: {budget(found)}"))
    return tuple(keys)


def _note(layer: Layer) -> str:
    """The block of a layer, and what it computes there."""
    parts = [layer.block, layer.stream, f"computes {', '.join(layer.members)}" if layer.members else None]
    return " ".join(part for part in parts if part)


def _error(layer: Layer) -> float:
    """Of the output, as a share of it: root mean square over root mean square."""
    return 0.0 if layer.sqnr_db is None else 10.0 ** (-layer.sqnr_db / 20.0)
