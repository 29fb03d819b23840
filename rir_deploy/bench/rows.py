"""The rows of a comparison: one engine at one batch size each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rir_deploy.bench.summary import LatencyRecord


@dataclass(frozen=True)
class BenchRow:
    """``record`` is None where the engine could not be run, and ``reason`` says why.

    ``engine`` is the path as it was given; ``details`` is further plain data on how it ran.
    """

    engine: str
    backend: str
    precision: str
    batch: int
    record: LatencyRecord | None
    reason: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return "not run" if self.record is None else "ok"


def speedup(row: BenchRow, rows: Sequence[BenchRow]) -> float | None:
    """How many times as fast, by median, as the first row of its batch size that ran; None where it did not run."""
    if row.record is None:
        return None
    first = next(other.record for other in rows if other.batch == row.batch and other.record is not None)
    return first.median_ms / max(row.record.median_ms, 1e-6)


def rows_to_dicts(rows: Sequence[BenchRow]) -> list[dict[str, object]]:
    return [_to_dict(row, speedup(row, rows)) for row in rows]


def _to_dict(row: BenchRow, factor: float | None) -> dict[str, object]:
    head: dict[str, object] = {
        "engine": row.engine,
        "backend": row.backend,
        "precision": row.precision,
        "batch": row.batch,
        "status": row.status,
    }
    if row.record is None:
        return {**head, "reason": row.reason, "latency_ms": None, "throughput_per_s": None, **row.details}
    return {**head, **row.record.to_dict(), "speedup": factor, **row.details}


def int8_notes(rows: Sequence[BenchRow]) -> list[str]:
    """One sentence for every INT8 row that loses to a wider precision on the same backend at the same batch size."""
    notes = []
    for row in rows:
        wider = [
            other
            for other in rows
            if (other.backend, other.batch) == (row.backend, row.batch) and other.precision != "int8"
        ]
        fastest = min(
            ((other.record.median_ms, other) for other in wider if other.record is not None),
            key=lambda pair: pair[0],
            default=None,
        )
        if row.precision != "int8" or row.record is None or fastest is None or row.record.median_ms < fastest[0]:
            continue
        notes.append(
            f"INT8 loses: {row.engine} takes {row.record.median_ms:.3f} ms at batch {row.batch}, "
            f"{fastest[1].engine} ({fastest[1].precision}) {fastest[0]:.3f} ms"
        )
    return notes
