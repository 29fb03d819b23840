"""Rows beside each other."""

from __future__ import annotations

from rir_deploy.bench.rows import int8_notes, rows_to_dicts
from tests.bench.records import row


def test_speed_is_by_the_first_row_of_the_batch_size_that_ran() -> None:
    rows = [row("gpu", None), row("a", 6), row("b", 2), row("a", 30, 8), row("b", 20, 8)]
    data = rows_to_dicts(rows)
    assert [one.get("speedup") for one in data] == [None, 1, 3, 1, 1.5]
    assert [one["engine"] for one in data] == ["gpu", "a", "b", "a", "b"]


def test_a_row_that_was_not_run_has_a_reason_for_figures() -> None:
    data = rows_to_dicts([row("gpu", None), row("a", 6)])[0]
    assert (data["status"], data["reason"]) == ("not run", "no GPU")
    assert data["latency_ms"] is None
    assert data["throughput_per_s"] is None


def test_int8_that_loses_is_named() -> None:
    rows = [
        row("half", 4, precision="fp16"),
        row("whole", 3),
        row("small", 5, precision="int8"),
        row("small", 5, batch=8, precision="int8"),
        row("small elsewhere", 9, precision="int8", backend="c"),
    ]
    (note,) = int8_notes(rows)
    assert note == "INT8 loses: small takes 5.000 ms at batch 1, whole (fp32) 3.000 ms"


def test_int8_that_wins_or_has_nothing_beside_it_is_not() -> None:
    assert int8_notes([row("whole", 3), row("small", 2, precision="int8"), row("gpu", None, precision="int8")]) == []
    assert int8_notes([row("whole", None), row("small", 2, precision="int8")]) == []
