"""Tables on the engines: what they are, how they were proven, what their runtimes made of them."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema_engine import Engine, GateBounds, Verify
from rir_deploy.report.table import Cell, Table, columns


def engines_table(engines: tuple[Engine, ...]) -> Table:
    """One row an engine, with the figures of its parity proof."""
    titles = columns(
        "engine",
        "backend",
        "precision",
        ">size",
        ">build (s)",
        ">top-1 reference",
        ">top-1 engine",
        ">drop (points)",
        ">agreement",
        ">max error",
        ">SQNR (dB)",
        "parity",
    )
    rows = tuple((*_head(engine), *_figures(engine.verify), parity(engine)) for engine in engines)
    return Table("engines", "Engines, verified against the checkpoint", titles, rows, wide=True)


def _head(engine: Engine) -> tuple[Cell, ...]:
    return (
        Cell(engine.name),
        Cell(engine.backend),
        Cell(engine.precision),
        Cell(text.NONE if engine.size_bytes is None else text.size(engine.size_bytes)),
        Cell(text.number(engine.seconds, 2)),
    )


def _figures(verify: Verify | None) -> tuple[Cell, ...]:
    if verify is None:
        return (Cell(text.NONE),) * 6
    return (
        Cell(text.percent(verify.reference.top1)),
        Cell(text.percent(verify.candidate.top1)),
        Cell(text.points(verify.top1_drop)),
        Cell(text.percent(verify.agreement)),
        Cell(text.error(verify.max_abs_error)),
        Cell("equal" if verify.max_abs_error == 0 else text.number(verify.sqnr_db, 1)),
    )


def parity(engine: Engine) -> Cell:
    """The verdict on an engine, which always says whether the engine itself has run."""
    verify = engine.verify
    simulated = verify is not None and verify.simulation
    if engine.status in ("built, not run", "not built"):
        status = f"{engine.status}: {engine.reason}" if engine.reason else engine.status
        if verify is None:
            return Cell(status, tone="muted")
        how = "simulation" if simulated else "proof"
        return Cell(status, f"{how}: {_verdict(verify)}", tone="muted" if verify.passed else "bad")
    label = " (simulation)" if simulated else ""
    if engine.failed:
        why = engine.reason if verify is None or verify.passed else "; ".join(verify.failures) or engine.reason
        return Cell(f"failed{label}", why, tone="bad")
    return Cell(f"passed{label}", engine.reason, tone="good")


def _verdict(verify: Verify) -> str:
    return "passed" if verify.passed else f"failed: {'; '.join(verify.failures)}"


def proofs_table(engines: tuple[Engine, ...]) -> Table:
    """What the proof of each engine ran on, and the bounds it had to keep."""
    titles = columns(
        "engine", ">images", ">top-5 reference", ">top-5 engine", ">mean error", "gate", "reference ran on", "ran on"
    )
    rows = tuple(_proof(engine, engine.verify) for engine in engines if engine.verify is not None)
    return Table("proofs", "The parity proofs", titles, rows, wide=True)


def _proof(engine: Engine, verify: Verify) -> tuple[Cell, ...]:
    return (
        Cell(engine.name),
        Cell(text.count(verify.images)),
        Cell(text.percent(verify.reference.top5)),
        Cell(text.percent(verify.candidate.top5)),
        Cell(text.error(verify.mean_abs_error)),
        Cell(verify.gate.precision, _bounds(verify.gate)),
        Cell(verify.reference.runs_on),
        Cell(verify.candidate.runs_on, "not the engine itself" if verify.simulation else ""),
    )


def _bounds(gate: GateBounds) -> str:
    bounds = [f"agreement ≥ {text.percent(gate.min_agreement)}", f"drop ≤ {text.points(gate.max_top1_drop)} points"]
    bounds += [f"{name} {value:g}" for name, value in (("atol", gate.atol), ("rtol", gate.rtol)) if value is not None]
    return ", ".join(bounds)


def runtimes_table(engines: tuple[Engine, ...]) -> Table:
    """What each runtime made of its graph."""
    titles = columns("engine", "backend version", "flavour", "targets", "realised")
    rows = tuple(
        (
            Cell(engine.name),
            Cell(f"{engine.backend} {engine.backend_version}"),
            Cell(engine.flavour or text.NONE),
            Cell(", ".join(engine.targets) or text.NONE),
            Cell(text.words(engine.realized)),
        )
        for engine in engines
        if engine.status != "not built"
    )
    return Table("runtimes", "What the runtimes made of the graphs", titles, rows, wide=True)
