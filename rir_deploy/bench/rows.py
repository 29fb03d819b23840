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
    """One sentence for each backend, batch size and mode whose fastest INT8 row is beaten by a wider precision, or does
    not beat it by more than the noise (`LEVEL`).
    """
    notes = []
    for key in dict.fromkeys((row.backend, row.batch, row.mode) for row in rows):
        costs = [
            (row.record.cost_ms, row)
            for row in rows
            if (row.backend, row.batch, row.mode) == key and row.record is not None
        ]
        narrow = [pair for pair in costs if pair[1].precision == "int8"]
        wide = [pair for pair in costs if pair[1].precision != "int8"]
        if not narrow or not wide:
            continue
        (own, row), (least, other) = (min(pairs, key=lambda pair: pair[0]) for pairs in (narrow, wide))
        if own * (1 + LEVEL) < least:
            continue
        verdict = "loses" if own > least * (1 + LEVEL) else "gains nothing"
        notes.append(
            f"INT8 {verdict}: {row.engine} takes {own:.3f} ms at batch {row.batch}, {other.engine} ({other.precision}) "
            f"{least:.3f} ms{_of_mode(row)}; deploy that one, or see with inspect which layers stayed in float"
        )
    return notes


def _of_mode(row: BenchRow) -> str:
    return "" if row.mode == SYNCHRONOUS else f" a request when {row.mode}"
