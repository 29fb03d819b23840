"""Plots on latency: one a batch size, and latency and throughput over batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rir_deploy.report import text
from rir_deploy.report.plots import Key, Plot, role_of, row_keys
from rir_deploy.report.plots_spread import spread_plot
from rir_deploy.report.rows import WIDTH_IN, Row, dot, row_axes, scale, span, tick, tracks
from rir_deploy.report.schema_bench import Bench, BenchResult, Latency
from rir_deploy.report.series import frame, role, shape
from rir_deploy.report.svg import drawing, paint, to_svg
from rir_deploy.report.tables_bench import Key as Label
from rir_deploy.report.tables_bench import key_of, labels, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bench_plots(bench: Bench) -> list[Plot]:
    """Latency and the spread of the calls for each batch size that was timed; over several, latency and images/s by
    batch size: those of one call after another, and the throughput of several in flight.
    """
    alone, flying = split(bench)
    names = labels(bench)
    batches = sorted({result.batch for result in alone if result.latency_ms is not None})
    one_caller = "Images a second over batch size, one call after another"
    sweeps = (
        _sweep(alone, names, "Median latency over batch size", "ms", _median),
        _sweep(alone, names, one_caller, "images/s", _rate),
        _sweep(flying, names, "Throughput over batch size, several calls in flight", "images/s", _rate),
    )
    of_batches = [plot for batch in batches for plot in (_latency_plot(bench, batch), spread_plot(bench, batch))]
    return [plot for plot in (*of_batches, *sweeps) if plot is not None]


def _latency_plot(bench: Bench, batch: int) -> Plot:
    """Median with a line from the smallest to p99, and ticks at p90 and p99."""
    names = labels(bench)
    timed = [(one, one.latency_ms) for one in split(bench)[0] if one.batch == batch and one.latency_ms is not None]
    rows = [Row(names[key_of(one)], f"{text.ms(latency.median)} ms") for one, latency in timed]
    with drawing(f"latency-{batch}"):
        figure, axes = row_axes(rows, axis=True)
        tracks(axes, len(rows))
        ends = [value for _, one in timed for value in (one.min, one.median, one.p99) if value is not None]
        logarithmic = scale(axes, ends)
        for index, (result, latency) in enumerate(timed):
            _mark(axes, index, latency, role_of(result))
        svg = to_svg(figure, f"Latency at batch {batch}, median, p90 and p99: {_read_out(bench, timed)}")
    marks = "median; line from the fastest call to p99, ticks at p90 and p99"
    caption = f"Latency at batch {text.count(batch)}, {_axis('ms', logarithmic)}: {marks}"
    return Plot(caption, svg, row_keys([one for one, _ in timed], "●"))


def _mark(axes: Axes, index: int, latency: Latency, role: str) -> None:
    span(axes, index, latency.median if latency.min is None else latency.min, latency.p99, role)
    for value in (latency.p90, latency.p99):
        tick(axes, index, value, role)
    dot(axes, index, latency.median, role)


def _read_out(bench: Bench, timed: Sequence[tuple[BenchResult, Latency]]) -> str:
    names = labels(bench)
    return "; ".join(
        f"{names[key_of(one)]} {text.ms(latency.median)}, {text.ms(latency.p90)}, {text.ms(latency.p99)} ms"
        for one, latency in timed
    )


def _sweep(
    results: Sequence[BenchResult],
    names: Mapping[Label, str],
    caption: str,
    unit: str,
    value: Callable[[BenchResult], float | None],
) -> Plot | None:
    """A figure over batch sizes, a line an engine; None where nothing was measured at two."""
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = {}
    for one in results:
        found = value(one)
        if found:
            series.setdefault(names[key_of(one)], []).append((one.batch, found))
    batches = sorted({batch for points in series.values() for batch, _ in points})
    if len(batches) < 2:
        return None
    with drawing(caption):
        figure = Figure(figsize=(WIDTH_IN, 3.0))
        figure.patch.set_visible(False)
        axes = figure.add_axes((0.15, 0.13, 0.82, 0.83))
        frame(axes)
        _batches(axes, batches)
        logarithmic = scale(axes, [value for points in series.values() for _, value in points], "y")
        for index, points in enumerate(series.values()):
            xs, ys = zip(*sorted(points), strict=True)
            axes.plot(xs, ys, color=paint(role(index)), marker=shape(index)[0], ms=5, lw=1.4, clip_on=False)
        svg = to_svg(figure, f"{caption}, {unit}: {_read_series(series)}")
    legend = tuple(Key(role(index), shape(index)[1], name) for index, name in enumerate(series))
    return Plot(f"{caption}, {_axis(unit, logarithmic)}", svg, legend)


def _axis(unit: str, logarithmic: bool) -> str:
    return f"{unit} (logarithmic)" if logarithmic else unit


def _batches(axes: Axes, batches: Sequence[int]) -> None:
    """Batch sizes on a scale of powers of two, with a tick at each."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(batches)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _rate(result: BenchResult) -> float | None:
    return result.throughput_per_s


def _median(result: BenchResult) -> float | None:
    return None if result.latency_ms is None else result.latency_ms.median


def _read_series(series: dict[str, list[tuple[int, float]]]) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{text.number(value, 0 if value >= 100 else 3)} at {batch}" for batch, value in points)
        for name, points in series.items()
    )
