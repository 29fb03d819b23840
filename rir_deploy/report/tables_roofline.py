"""Tables on what the machine could do at most, and on what keeps engines from it."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema_roofline import RoofEngine, RoofLayer, Roofline
from rir_deploy.report.table import Cell, Table, columns

# Layers of an engine, those that lose most time first.
_LAYERS = 6


def roofline_tables(roofline: Roofline) -> tuple[Table, ...]:
    """The ceilings, the engines against them, and the layers that hold engines back, where runtimes tell."""
    layers = _layers_table(roofline)
    return (_engines_table(roofline), *([layers] if layers.rows else []), _ceilings_table(roofline))


def roofline_doubts(roofline: Roofline) -> list[str]:
    """Sentences on figures to be wary of."""
    names = _names(roofline)
    own = [
        f"{names[one.engine]} at batch {one.batch}: {warning}" for one in roofline.engines for warning in one.warnings
    ]
    return [*own, *roofline.notes]


def _names(roofline: Roofline) -> dict[str, str]:
    return text.short_names([one.engine for one in roofline.engines])


def _engines_table(roofline: Roofline) -> Table:
    titles = columns(
        "engine",
        "backend",
        "precision",
        ">batch",
        ">median (ms)",
        ">least (ms)",
        ">of the ceiling",
        ">fastest call",
        ">GMAC/s",
        ">beside the layers (ms)",
    )
    names = _names(roofline)
    rows = tuple(_engine(one, names[one.engine]) for one in roofline.engines)
    caption = (
        f"Engines against the least time that their layers could take, on {text.plural(roofline.threads, 'thread')}"
    )
    return Table("roofline", caption, titles, rows, wide=True)


def _engine(one: RoofEngine, name: str) -> tuple[Cell, ...]:
    return (
        Cell(name, title=one.engine),
        Cell(one.backend),
        Cell(one.precision),
        Cell(text.count(one.batch)),
        Cell(text.ms(one.median_ms)),
        Cell(text.ms(one.ceiling_ms)),
        Cell(text.percent(one.share, 1)),
        Cell(text.percent(one.fastest_share, 1)),
        Cell(text.number(one.gmac_per_s, 1)),
        Cell(text.ms(one.rest_ms)),
    )


def _layers_table(roofline: Roofline) -> Table:
    titles = columns(
        "engine", ">batch", "layer", "block", ">MMAC", ">measured (ms)", ">least (ms)", ">of the ceiling", "bound by"
    )
    names = _names(roofline)
    rows = [_layer(names[one.engine], one.batch, layer) for one in roofline.engines for layer in losing(one)]
    return Table("roofline-layers", "The layers that lose most time", titles, tuple(rows), wide=True)


def losing(engine: RoofEngine) -> list[RoofLayer]:
    """The layers that lose most against their least time."""
    timed = [(layer, layer.measured_ms) for layer in engine.layers if layer.measured_ms]
    worst = sorted(timed, key=lambda pair: pair[0].ceiling_ms - pair[1])
    return [layer for layer, _ in worst[:_LAYERS]]


def _layer(name: str, batch: int, layer: RoofLayer) -> tuple[Cell, ...]:
    share = layer.ceiling_ms / layer.measured_ms if layer.measured_ms else None
    return (
        Cell(name),
        Cell(text.count(batch)),
        Cell(layer.node),
        Cell(layer.block or text.NONE),
        Cell(text.number(layer.macs / 1e6, 1)),
        Cell(text.ms(layer.measured_ms)),
        Cell(text.ms(layer.ceiling_ms)),
        Cell(text.percent(share, 1)),
        Cell("multiply-adds" if layer.bound == "compute" else "bytes"),
    )


def _ceilings_table(roofline: Roofline) -> Table:
    rows = [
        (Cell(one.precision), Cell(one.backend), Cell(f"{text.number(one.gmac_per_s, 1)} GMAC/s"), Cell(one.shape))
        for one in roofline.ceilings
    ]
    rows += [
        (
            Cell("copy"),
            Cell(text.NONE),
            Cell(f"{text.number(one.gb_per_s, 1)} GB/s"),
            Cell(text.size(one.working_set_bytes)),
        )
        for one in roofline.copies
    ]
    titles = columns("kind", "backend", ">most reached", "by")
    caption = f"The ceilings of {roofline.machine.cpu}, measured on {text.plural(roofline.threads, 'thread')}"
    return Table("ceilings", caption, titles, tuple(rows))
