"""The latency gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.bench.baseline import Baseline, check_common, compare, read_baseline
from rir_deploy.errors import BackendError, InputError
from tests.bench.records import document, pipelined, row

SYNC = "synchronous"


def write(path: Path, data: object) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def baseline(**medians: float) -> Baseline:
    return Baseline("old.json", {(name, "b", 1, SYNC): ms for name, ms in medians.items()}, None)


def test_a_median_at_the_limit_passes_and_one_over_it_does_not() -> None:
    result = compare([row("x", 4.2), row("y", 4.4), row("z", 3)], baseline(x=4, y=4, z=4), 0.06)
    assert [one.change for one in result.comparisons] == pytest.approx([0.05, 0.1, -0.25])
    assert [one.engine for one in result.regressions] == ["y"]
    assert not result.passed
    assert result.failures == ["y at batch 1 takes 4.400 ms, 10.0% more than 4.000 ms (allowed: 6.0%)"]
    assert compare([row("x", 4)], baseline(x=4), 0).passed


def test_rows_without_a_partner_are_named() -> None:
    rows = [row("x", 4), row("gpu", None), row("new", 1), row("x", 4, batch=8)]
    result = compare(rows, baseline(x=4), 0.05)
    assert result.passed
    assert result.lost == ()
    assert result.missing == (
        "gpu (b) at batch 1: not in the baseline",
        "new (b) at batch 1: not in the baseline",
        "x (b) at batch 8: not in the baseline",
    )


def test_an_engine_of_the_baseline_that_does_not_run_fails_the_gate() -> None:
    result = compare([row("x", 4), row("gpu", None)], baseline(x=4, gpu=1), 0.05)
    assert result.regressions == result.missing == ()
    assert result.lost == ("gpu (b) at batch 1: not run: no GPU",)
    assert not result.passed
    assert result.failures == ["gpu (b) at batch 1: not run: no GPU, which the baseline has"]
    assert result.to_dict()["passed"] is False
    assert result.to_dict()["lost"] == list(result.lost)


def test_an_engine_that_moved_is_known_by_its_name_unless_two_have_it() -> None:
    moved = Baseline("old.json", {("old/int8", "b", 1, SYNC): 2.0, ("old/fp32", "b", 1, SYNC): 4.0}, None)
    assert moved.find(row("/new/int8", 1)) == 2
    assert moved.find(row("/new/int8", 1, backend="other")) is None
    twins = Baseline("old.json", {("p/int8", "b", 1, SYNC): 2.0, ("q/int8", "b", 1, SYNC): 4.0}, None)
    assert twins.find(row("q/int8", 1)) == 4
    assert twins.find(row("/new/int8", 1)) is None


def test_a_gate_never_passes_for_want_of_anything_to_compare() -> None:
    with pytest.raises(InputError, match=r"it has y \(b\) at batch 1"):
        check_common([row("x", None)], baseline(y=4))
    check_common([row("x", None)], baseline(x=4))
    with pytest.raises(BackendError, match=r"x \(b\) at batch 1: not run"):
        compare([row("x", None), row("y", 3)], baseline(x=4), 0.05)


def test_each_mode_is_compared_with_itself(tmp_path: Path) -> None:
    """By the throughput where requests are in flight together: their own times are those of the queue."""
    sync: Any = document([("x", "b", 8, 3.0)])
    rows = [*sync["results"], {**sync["results"][0], "mode": "pipelined", "throughput_per_s": 4000}]
    read = read_baseline(write(tmp_path / "old.json", {"results": rows}))
    assert read.costs_ms == {("x", "b", 8, SYNC): 3.0, ("x", "b", 8, "pipelined"): 2.0}
    result = compare([row("x", 3, batch=8), pipelined("x", 2.5, batch=8)], read, 0.05)
    assert [(one.mode, one.change) for one in result.comparisons] == [(SYNC, 0), ("pipelined", pytest.approx(0.25))]
    assert result.failures == ["x at batch 8, pipelined, takes 2.500 ms, 25.0% more than 2.000 ms (allowed: 5.0%)"]
    with pytest.raises(InputError, match="nothing that is to be timed here"):
        check_common([pipelined("x", 2)], baseline(x=4))


def test_what_was_timed_in_another_way_is_said(tmp_path: Path) -> None:
    data: Any = document([("p/x", "b", 1, 4.5), ("y", "b", 1, 4.5), ("z", "b", 1, 4.5)], cpu="some CPU")
    x, y, _ = data["results"]
    x |= {"threads": 4, "cuda_graph": True, "transfers": True}
    y |= {"threads": 4}
    read = read_baseline(write(tmp_path / "old.json", data))
    now = {"threads": 2, "cuda_graph": False, "transfers": True}
    rows = [replace(row(name, 4), details=now) for name in ("x", "y", "z", "new")]
    start, end = "the baseline was measured", "the times cannot be compared; make one in the same way"
    assert [read.otherwise(one) for one in rows] == [
        f"{start} on 4 threads, and this is on 2 threads: {end}",
        f"{start} on 4 threads, and this is on 2 threads: {end}",
        "",
        "",
    ]
    graph, copies = now | {"threads": 4}, now | {"threads": 4, "cuda_graph": True, "transfers": False}
    assert [read.otherwise(replace(rows[0], details=one)) for one in (graph, copies)] == [
        f"{start} with a CUDA graph, and this is without a CUDA graph: {end}",
        f"{start} with the copies to and from the GPU, and this is without the copies to and from the GPU: {end}",
    ]
    assert read.another_machine("some CPU") == []
    assert read.another_machine("another") == [
        "the baseline was measured on another machine (some CPU, here another); make one here"
    ]
    # What was timed otherwise decides nothing; where nothing else is left, that is no gate.
    result = compare(rows, read, 0.05)
    assert [one.engine for one in result.comparisons] == ["z"]
    assert [one.split(":")[0] for one in result.missing] == [
        "x (b) at batch 1",
        "y (b) at batch 1",
        "new (b) at batch 1",
    ]
    with pytest.raises(InputError, match=r"nothing can be held against .*on 4 threads"):
        check_common(rows[:2], read)
    with pytest.raises(InputError, match="on 4 threads"):
        compare(rows[:2], read, 0.05)


def test_another_number_of_streams_is_said(tmp_path: Path) -> None:
    data: Any = document([("x", "b", 1, 4.5)])
    data["results"][0] |= {"mode": "pipelined", "throughput_per_s": 500, "streams": 1}
    read = read_baseline(write(tmp_path / "old.json", data))
    assert "with 1 request in flight, and this is with 2 requests in flight" in read.otherwise(pipelined("x", 2))
    data["results"][0]["streams"] = 2
    assert read_baseline(write(tmp_path / "same.json", data)).otherwise(pipelined("x", 2)) == ""


def test_reading(tmp_path: Path) -> None:
    data = document([("x", "b", 1, 4.5), ("x", "b", 8, 9)], cpu="some CPU")
    data["results"].append({"engine": "gpu", "status": "not run", "latency_ms": None})  # type: ignore[attr-defined]
    read = read_baseline(write(tmp_path / "old.json", data))
    assert read.costs_ms == {("x", "b", 1, SYNC): 4.5, ("x", "b", 8, SYNC): 9}
    assert read.cpu == "some CPU"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ([], "not what bench --json prints"),
        ({"results": 3}, "not what bench --json prints"),
        ({"results": [{"engine": "x", "backend": "b", "batch": 1}]}, "not what bench --json prints"),
        ({"results": ["x"]}, "not what bench --json prints"),
        ({"results": [], "machine": {}}, "no engine that ran"),
        (document([("x", "b", 1, 0)]), "median 0"),
        (document([("x", "b", 1, -3)]), "median -3"),
        (document([("x", "b", 1, float("nan"))]), "median nan"),
        (document([("x", "b", 1, True)]), "median True"),
        (document([("x", "b", "1", 3)]), "batch '1'"),  # type: ignore[list-item]
        (document([(3, "b", 1, 3)]), "must be text"),  # type: ignore[list-item]
        ({"results": [{"engine": "x", "backend": "b", "batch": 1, "mode": "pipelined", "throughput_per_s": 0}]}, "s 0"),
        (document([("x", "b", 1, 3), ("x", "b", 1, 4)]), "'x' at batch 1 twice"),
        ({"results": [], "machine": 3}, "not what bench --json prints"),
    ],
)
def test_a_malformed_baseline_is_refused(data: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"old\.json") as caught:
        read_baseline(write(tmp_path / "old.json", data))
    assert words in str(caught.value)


def test_a_missing_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bench \.\.\. --json"):
        read_baseline(tmp_path / "none.json")
    with pytest.raises(InputError, match="not readable"):
        read_baseline(tmp_path)
