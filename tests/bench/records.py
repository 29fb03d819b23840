"""Samples and rows with known times."""

from __future__ import annotations

from collections.abc import Iterable

from rir_deploy.bench.latency import Samples
from rir_deploy.bench.rows import BenchRow
from rir_deploy.bench.summary import summarize


def samples(*times_ms: float, first_ms: float = 9.0, elapsed_ms: float | None = None) -> Samples:
    """``elapsed_ms`` None: one call after another, with nothing in between."""
    elapsed = sum(times_ms) if elapsed_ms is None else elapsed_ms
    return Samples(tuple(round(ms * 1e6) for ms in times_ms), round(first_ms * 1e6), 1, round(elapsed * 1e6))


def row(engine: str, median_ms: float | None, batch: int = 1, precision: str = "fp32", backend: str = "b") -> BenchRow:
    """A row of three equal calls, or one that was not run."""
    record = None if median_ms is None else summarize([samples(*[median_ms] * 3)], batch)
    return BenchRow(engine, backend, precision, batch, record, "no GPU" if median_ms is None else "")


def pipelined(engine: str, cost_ms: float, batch: int = 1, precision: str = "fp32") -> BenchRow:
    """A row of two streams whose calls take 7 ms, one of which ends every ``cost_ms``."""
    record = summarize([samples(*[7] * 10, elapsed_ms=10 * cost_ms)], batch, streams=2)
    return BenchRow(engine, "b", precision, batch, record, mode="pipelined")


def document(rows: Iterable[tuple[str, str, int, float]], cpu: str | None = None) -> dict[str, object]:
    """What a baseline file of synchronous calls holds at least: (engine, backend, batch, median)."""
    results = [
        {"engine": engine, "backend": backend, "precision": "fp32", "batch": batch, "latency_ms": {"median": median}}
        for engine, backend, batch, median in rows
    ]
    return {"results": results} if cpu is None else {"results": results, "machine": {"cpu": cpu}}
