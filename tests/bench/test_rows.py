"""Rows beside each other."""

from __future__ import annotations

from rir_deploy.bench.rows import int8_notes, rows_to_dicts
from tests.bench.records import pipelined, row


def test_speed_is_by_the_first_row_of_the_batch_size_that_ran() -> None:
    rows = [row("gpu", None), row("a", 6), row("b", 2), row("a", 30, 8), row("b", 20, 8)]
    data = rows_to_dicts(rows)
    assert [one.get("speedup") for one in data] == [None, 1, 3, 1, 1.5]
    assert [one["engine"] for one in data] == ["gpu", "a", "b", "a", "b"]


def test_modes_are_not_compared_with_each_other() -> None:
    rows = [row("a", 6), row("b", 2), pipelined("a", 4), pipelined("b", 1)]
    assert [one["speedup"] for one in rows_to_dicts(rows)] == [1, 3, 1, 4]
    assert [one["mode"] for one in rows_to_dicts(rows)] == ["synchronous"] * 2 + ["pipelined"] * 2
    assert [one.get("streams") for one in rows_to_dicts(rows)] == [None, None, 2, 2]


def test_int8_may_win_one_mode_and_lose_the_other() -> None:
    rows = [row("whole", 3), row("small", 2, precision="int8")]
    rows += [pipelined("whole", 1), pipelined("small", 2, precision="int8")]
    (note,) = int8_notes(rows)
    assert "small takes 2.000 ms at batch 1, whole (fp32) 1.000 ms a request when pipelined" in note


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
    assert note.startswith("INT8 loses: small takes 5.000 ms at batch 1, whole (fp32) 3.000 ms; deploy that one")


def test_int8_that_is_level_gains_nothing() -> None:
    for median in (2.9, 3.0, 3.1):
        (note,) = int8_notes([row("whole", 3), row("small", median, precision="int8")])
        assert note.startswith(f"INT8 gains nothing: small takes {median:.3f} ms")
    assert int8_notes([row("whole", 3), row("small", 2.8, precision="int8")]) == []


def test_a_slower_int8_beside_a_fast_one_is_no_matter() -> None:
    rows = [row("whole", 3), row("small", 2, precision="int8"), row("small, unfolded", 4, precision="int8")]
    assert int8_notes(rows) == []


def test_int8_that_wins_or_has_nothing_beside_it_is_not() -> None:
    assert int8_notes([row("whole", 3), row("small", 2, precision="int8"), row("gpu", None, precision="int8")]) == []
    assert int8_notes([row("whole", None), row("small", 2, precision="int8")]) == []
