"""The rows of a comparison: one engine at one batch size in one mode each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rir_deploy.bench.options import SYNCHRONOUS
from rir_deploy.bench.summary import LatencyRecord

# Two timings of one engine differ by as much.
LEVEL = 0.05


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
    mode: str = SYNCHRONOUS

    @property
    def status(self) -> str:
        return "not run" if self.record is None else "ok"

    @property
    def label(self) -> str:
        pipelined = "" if self.mode == SYNCHRONOUS else f", {self.mode}"
        return f"{self.engine} ({self.backend}) at batch {self.batch}{pipelined}"


def speedup(row: BenchRow, rows: Sequence[BenchRow]) -> float | None:
    """How many times as fast as the first row of its mode and batch size that ran; None where it did not run.

    By the median of synchronous calls, by the throughput of pipelined ones.
    """
    if row.record is None:
        return None
    same = [other for other in rows if (other.mode, other.batch) == (row.mode, row.batch)]
    first = next(other.record for other in same if other.record is not None)
    return first.cost_ms / max(row.record.cost_ms, 1e-6)


def rows_to_dicts(rows: Sequence[BenchRow]) -> list[dict[str, object]]:
    return [_to_dict(row, speedup(row, rows)) for row in rows]


def _to_dict(row: BenchRow, factor: float | None) -> dict[str, object]:
    head: dict[str, object] = {
        "engine": row.engine,
        "backend": row.backend,
        "precision": row.precision,
        "batch": row.batch,
        "mode": row.mode,
        "status": row.status,
    }
    if row.record is None:
        return {**head, "reason": row.reason, "latency_ms": None, "throughput_per_s": None, **row.details}
    return {**head, **row.record.to_dict(), "speedup": factor, **row.details}


def int8_notes(rows: Sequence[BenchRow]) -> list[str]:
    """One sentence for every INT8 row that a wider precision beats, or comes up to within the noise (`LEVEL`), on the
    same backend at the same batch size."""
    notes = []
    for row in rows:
        wider = [
            other
            for other in rows
            if (other.backend, other.batch, other.mode) == (row.backend, row.batch, row.mode)
            and other.precision != "int8"
        ]
        fastest = min(
            ((other.record.cost_ms, other) for other in wider if other.record is not None),
            key=lambda pair: pair[0],
            default=None,
        )
        if row.precision != "int8" or row.record is None or fastest is None:
            continue
        share = row.record.cost_ms / max(fastest[0], 1e-6) - 1
        if share < -LEVEL:
            continue
        verdict = "loses" if share > LEVEL else "gains nothing"
        notes.append(
            f"INT8 {verdict}: {row.engine} takes {row.record.cost_ms:.3f} ms at batch {row.batch}, "
            f"{fastest[1].engine} ({fastest[1].precision}) {fastest[0]:.3f} ms{_of_mode(row)}; deploy that one, or see "
            "with inspect which layers stayed in float"
        )
    return notes


def _of_mode(row: BenchRow) -> str:
    return "" if row.mode == SYNCHRONOUS else f" a request when {row.mode}"
