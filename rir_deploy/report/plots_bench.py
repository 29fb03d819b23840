"""Plots on latency: one a batch size, and throughput over batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot, precision_keys
from rir_deploy.report.rows import WIDTH_IN, Row, dot, row_axes, scale, span, tick, tracks
from rir_deploy.report.schema_engine import Bench, BenchResult, Latency
from rir_deploy.report.svg import SERIES, drawing, paint, to_svg
from rir_deploy.report.tables_bench import is_eager, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A shape a series, as matplotlib and as a legend write it.
_MARKS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))


def bench_plots(bench: Bench) -> list[Plot]:
    """A latency plot for each batch size that was timed; over several, throughput as well."""
    batches = sorted({result.batch for result in bench.results if result.latency_ms is not None})
    plots = [_latency_plot(bench, batch) for batch in batches]
    return [*plots, _throughput_plot(bench)] if len(batches) > 1 else plots


def _latency_plot(bench: Bench, batch: int) -> Plot:
    """Median with a line to p99 and a tick at p90."""
    names = labels(bench)
    timed = [(one, one.latency_ms) for one in bench.results if one.batch == batch and one.latency_ms is not None]
    rows = [Row(names[one.engine, one.backend], f"{text.ms(latency.median)} ms") for one, latency in timed]
    with drawing(f"latency-{batch}"):
        figure, axes = row_axes(rows, axis=True)
        tracks(axes, len(rows))
        logarithmic = scale(axes, [value for _, latency in timed for value in (latency.median, latency.p99)])
        for index, (result, latency) in enumerate(timed):
            _mark(axes, index, latency, "ink" if is_eager(result) else result.precision)
        svg = to_svg(figure, f"Latency at batch {batch}, median, p90 and p99: {_read_out(bench, timed)}")
    eager = (Key("ink", "●", "PyTorch eager"),) if any(is_eager(one) for one, _ in timed) else ()
    precisions = [one.precision for one, _ in timed if not is_eager(one)]
    caption = f"Latency at batch {text.count(batch)}, {_axis('ms', logarithmic)}: median, tick at p90, line to p99"
    return Plot(caption, svg, (*eager, *precision_keys(precisions, "●")))


def _mark(axes: Axes, index: int, latency: Latency, role: str) -> None:
    span(axes, index, latency.median, latency.p99, role)
    for value in (latency.p90, latency.p99):
        tick(axes, index, value, role)
    dot(axes, index, latency.median, role)


def _read_out(bench: Bench, timed: Sequence[tuple[BenchResult, Latency]]) -> str:
    names = labels(bench)
    return "; ".join(
        f"{names[one.engine, one.backend]} {text.ms(latency.median)}, {text.ms(latency.p90)}, {text.ms(latency.p99)} ms"
        for one, latency in timed
    )


def _throughput_plot(bench: Bench) -> Plot:
    """Images a second over batch sizes, a line an engine."""
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = {}
    names = labels(bench)
    for one in bench.results:
        if one.throughput_per_s:
            series.setdefault(names[one.engine, one.backend], []).append((one.batch, one.throughput_per_s))
    with drawing("throughput"):
        figure = Figure(figsize=(WIDTH_IN, 3.0))
        figure.patch.set_visible(False)
        axes = figure.add_axes((0.15, 0.13, 0.82, 0.83))
        _frame(axes, sorted({batch for points in series.values() for batch, _ in points}))
        logarithmic = scale(axes, [value for points in series.values() for _, value in points], "y")
        for index, points in enumerate(series.values()):
            xs, ys = zip(*sorted(points), strict=True)
            axes.plot(xs, ys, color=paint(_role(index)), marker=_shape(index)[0], ms=5, lw=1.4, clip_on=False)
        svg = to_svg(figure, "Images a second by batch size: " + _read_series(series))
    legend = tuple(Key(_role(index), _shape(index)[1], name) for index, name in enumerate(series))
    return Plot(f"Throughput over batch size, {_axis('images/s', logarithmic)}", svg, legend)


def _axis(unit: str, logarithmic: bool) -> str:
    return f"{unit} (logarithmic)" if logarithmic else unit


def _frame(axes: Axes, batches: Sequence[int]) -> None:
    """Batch sizes on a scale of powers of two, with a tick at each."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(paint("line"))
    axes.tick_params(color=paint("line"), labelcolor=paint("soft"))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(batches)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=paint("line"), lw=0.6)


def _role(index: int) -> str:
    return f"series{index % SERIES}"


def _shape(index: int) -> tuple[str, str]:
    """Shifted by one after each turn of the colours, so that a colour comes back with another shape."""
    return _MARKS[(index + index // SERIES) % len(_MARKS)]


def _read_series(series: dict[str, list[tuple[int, float]]]) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{text.number(value, 0)} at {batch}" for batch, value in points)
        for name, points in series.items()
    )
