"""Runs side by side: who is better at what, what is not judged, and how a script learns of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.report.compare import Compared, compare_runs
from rir_deploy.report.junit import compared_suites
from rir_deploy.report.schema import read_run
from tests.conftest import Runner
from tests.report.page import read
from tests.report.sample import sample


def compared(*changes: Callable[[dict[str, Any]], object]) -> Compared:
    """The sample, and the sample with each of the changes."""
    runs = [("base", read_run(sample()))]
    for index, change in enumerate(changes):
        run = sample()
        change(run)
        runs.append((f"run{index}", read_run(run)))
    return compare_runs(runs)


def verdicts(found: Compared, engine: str = "openvino-int8", run: int = 1) -> dict[str, str | None]:
    return {one.name: one.better[run] for one in found.measures if one.engine == engine}


def of(engine: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda run: run["engines"][engine]["verify"].update(values)


def test_the_same_run_is_level_in_everything() -> None:
    found = compared(lambda run: None)
    assert verdicts(found) == {
        "size": "level",
        "top-1": "level",
        "agreement": "level",
        "SQNR": "level",
        "latency at batch 1": "level",
        "latency at batch 8": "level",
    }
    assert found.notes == ()
    assert found.worse == ()
    assert all(one.better[0] is None for one in found.measures)


@pytest.mark.parametrize(
    ("median", "better"), [(0.021 * 1.049, "level"), (0.021 * 1.051, "first"), (0.021 / 1.051, "second")]
)
def test_latency_is_level_within_five_per_cent(median: float, better: str) -> None:
    found = compared(lambda run: run["bench"]["results"][1]["latency_ms"].update(median=median))
    assert verdicts(found)["latency at batch 1"] == better
    assert bool(found.worse) == (better == "first")


@pytest.mark.parametrize(("size", "better"), [(61234 * 1.009, "level"), (61234 * 1.02, "first"), (61234 / 2, "second")])
def test_size_is_level_within_one_per_cent(size: float, better: str) -> None:
    found = compared(lambda run: run["engines"][1].update(size_bytes=int(size)))
    assert verdicts(found)["size"] == better


def test_images_decide_when_chance_does_not_explain_them() -> None:
    """359 images; each side changes 359 x (1 - 0.9973) = 0.97 predictions. 2 sqrt(0.97 + 359 (1 - a)) against
    359 (0.9973 - a): 5.02 against 5.31 at a = 0.98253 (5.3 lost), 4.41 against 3.88 at a = 0.98650."""
    assert verdicts(compared(of(1, agreement=0.9773)))["agreement"] == "first"
    assert verdicts(compared(of(1, agreement=0.9865)))["agreement"] == "level"
    better = verdicts(compared(of(1, agreement=0.9773)))
    assert better["SQNR"] == "level"


def test_another_checkpoint_is_said_and_its_top1_judged_as_of_two_samples() -> None:
    def other(run: dict[str, Any], top1: float) -> None:
        run["model"]["sha256"] = "ff" * 32
        run["engines"][1]["verify"]["candidate"]["top1"] = top1

    # 2 sqrt(359 (0.9889 0.0111 + q (1 - q))): 7.0 images at q = 0.977, 8.9 at q = 0.955; apart by 4.3 and 12.2.
    found = compared(lambda run: other(run, 0.977), lambda run: other(run, 0.955))
    assert verdicts(found, run=1)["top-1"] == "level"
    assert verdicts(found, run=2)["top-1"] == "first"
    assert found.notes[0].startswith("run0 is of another checkpoint (training/model.safetensors, ffffffffffff)")


def test_other_images_are_not_judged_by() -> None:
    found = compared(lambda run: run.update(data="/somewhere/other.zip"))
    assert [verdicts(found)[name] for name in ("top-1", "agreement", "SQNR")] == [None] * 3
    assert verdicts(found)["size"] == "level"
    assert "run0 was verified on 359 images of other.zip, base on 359 of digits:test" in found.notes[0]


@pytest.mark.parametrize("change", [{"cpu": "Other 8"}, {"gpus": ["A"]}])
def test_another_machine_is_not_raced(change: dict[str, Any]) -> None:
    found = compared(lambda run: run["bench"]["machine"].update(change))
    assert verdicts(found)["latency at batch 1"] is None
    assert verdicts(found)["size"] == "level"
    assert "latency is not judged" in found.notes[0]
    assert compared(lambda run: run["bench"]["settings"].update(threads=7)).notes


@pytest.mark.parametrize("change", [{"cuda_graph": True}, {"transfers": False}])
def test_calls_made_in_another_way_on_a_gpu_are_not_raced(change: dict[str, Any]) -> None:
    """Nothing but TensorRT's engine was timed in another way."""
    runs = []
    for name, way in (("base", {}), ("new", change)):
        run = sample()
        row = run["bench"]["results"][1] | {"engine": "engines/tensorrt-rtx-fp16", "backend": "tensorrt-rtx"}
        run["bench"]["results"][2] = row | {"cuda_graph": False, "transfers": True} | way
        runs.append((name, read_run(run)))
    found = compare_runs(runs)
    assert verdicts(found, "tensorrt-rtx-fp16")["latency at batch 1"] is None
    assert verdicts(found)["latency at batch 1"] == "level"
    (note,) = found.notes
    assert note.startswith("new timed TensorRT's engines with")
    assert note.endswith("without a CUDA graph and with the copies to and from the GPU: their latency is not judged")
    same = compare_runs([runs[1], runs[1]])
    assert verdicts(same, "tensorrt-rtx-fp16")["latency at batch 1"] == "level"
    assert same.notes == ()


def test_engines_that_one_run_lacks_have_no_verdict() -> None:
    found = compared(lambda run: run["engines"].pop(1))
    assert set(verdicts(found).values()) == {None}
    assert [one.values[1] for one in found.measures if one.engine == "openvino-int8"] == [None] * 6


def test_a_later_run_that_lacks_an_engine_is_worse() -> None:
    found = compared(lambda run: run["engines"].pop(1), lambda run: None)
    assert found.worse == ("run0 has no engine openvino-int8, which base has",)
    assert found.notes == found.worse
    new = compare_runs(list(zip(("old", "new"), (found.runs[1], found.runs[0]), strict=True)))
    assert (new.worse, new.notes) == ((), ())


def test_a_later_run_that_did_not_run_an_engine_is_worse() -> None:
    def stopped(run: dict[str, Any]) -> None:
        run["engines"][1] |= {"status": "built, not run", "reason": "no GPU"}

    found = compared(stopped)
    assert found.worse == ("run0 did not run openvino-int8 (no GPU), which base did",)
    backwards = compare_runs(list(zip(("old", "new"), (found.runs[1], found.runs[0]), strict=True)))
    assert backwards.worse == ()
    assert compare_runs([("a", found.runs[1]), ("b", found.runs[1])]).worse == ()


@pytest.mark.parametrize("row", ["gone", "not run", "all gone"])
def test_a_later_run_that_lost_its_times_is_worse(row: str) -> None:
    def lost(run: dict[str, Any]) -> None:
        results = run["bench"]["results"]
        if row == "not run":
            results[1] |= {"status": "not run", "reason": "x", "latency_ms": None, "throughput_per_s": None}
        elif row == "gone":
            del results[1]
        else:
            run["bench"] = None

    found = compared(lost)
    first = "run0 has no latency at batch 1 of openvino-int8, which base has"
    others = ("run0 has no latency at batch 8 of openvino-int8, which base has",) if row == "all gone" else ()
    assert found.worse == (first, *others)
    assert found.notes[: len(found.worse)] == found.worse
    assert ("run0 was not timed: latency is not judged" in found.notes) == (row == "all gone")
    failed = [case.name for suite in compared_suites(found) for case in suite.cases if case.failure]
    assert failed[0] == "openvino-int8: latency at batch 1"
    assert compare_runs([("old", found.runs[1]), ("new", found.runs[0])]).worse == ()


def test_throughput_is_compared_stream_by_stream() -> None:
    def flying(run: dict[str, Any], rate: float, streams: int) -> None:
        row = {"mode": "pipelined", "streams": streams, "throughput_per_s": rate}
        run["bench"]["results"].append(run["bench"]["results"][1] | row)

    first = sample()
    flying(first, 1000, 2)
    runs = [("base", first)]
    for rate, streams in ((953, 2), (952, 2), (1060, 2), (500, 4)):
        run = sample()
        flying(run, rate, streams)
        runs.append((f"{rate}", run))
    found = compare_runs([(name, read_run(run)) for name, run in runs])
    better = {one.name: one.better for one in found.measures if one.name.startswith("throughput")}
    # Within 5 % is level; another number of streams is another figure.
    assert better == {
        "throughput at batch 1, 2 streams": (None, "level", "first", "second", None),
        "throughput at batch 1, 4 streams": (None,) * 5,
    }
    assert "952: openvino-int8, throughput at batch 1, 2 streams 952 images/s against 1,000 images/s" in found.worse


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two folders; in the second an engine is 10 % slower and another smaller."""
    worse = sample()
    worse["bench"]["results"][1]["latency_ms"]["median"] = 0.0231
    worse["engines"][0]["size_bytes"] = 50000
    for name, run in (("base", sample()), ("new", worse)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(run))
    return [tmp_path / "base", tmp_path / "new"]


def test_the_command(runs: list[Path], rir: Runner) -> None:
    ran = rir("compare", *runs)
    assert ran.code == 0, ran.err
    assert "+10.0 %, worse" in ran.out
    assert "-56.9 %, better" in ran.out
    ran = rir("compare", runs[0], runs[1] / "run.json", "--json", "--fail-if-worse")
    assert ran.code == 3
    assert ran.json["worse"] == ["new: openvino-int8, latency at batch 1 0.023 ms against 0.021 ms"]
    assert [row["name"] for row in ran.json["runs"]] == ["base", "new"]
    assert "worse: new: openvino-int8, latency at batch 1" in ran.err
    assert rir("compare", runs[1], runs[0], "--fail-if-worse").code == 3  # the larger engine
    shutil.copytree(runs[0], runs[0].parent / "same")
    assert rir("compare", runs[0], runs[0].parent / "same", "--fail-if-worse").code == 0


def test_a_later_run_that_failed_is_worse(runs: list[Path], rir: Runner) -> None:
    (runs[1] / "run.json").write_text(json.dumps(sample() | {"passed": False}))
    ran = rir("compare", *runs, "--fail-if-worse")
    assert ran.code == 3
    assert "new did not pass" in ran.err


def test_an_engine_that_is_gone_fails_a_script(runs: list[Path], rir: Runner, tmp_path: Path) -> None:
    run = sample()
    del run["engines"][1]
    (runs[1] / "run.json").write_text(json.dumps(run))
    ran = rir("compare", *runs, "--fail-if-worse", "--junit", tmp_path / "c.xml")
    assert ran.code == 3
    assert "worse: new has no engine openvino-int8, which base has" in ran.err
    assert '<failure message="new has no engine openvino-int8, which base has"' in (tmp_path / "c.xml").read_text()
    assert rir("compare", *runs).code == 0


def test_the_page_and_markdown(runs: list[Path], rir: Runner, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    html, markdown = tmp_path / "c.html", tmp_path / "c.md"
    assert rir("compare", *runs, "--html", html, "--markdown", markdown).code == 0
    page = read(html.read_text(encoding="utf-8"))
    assert page.tables["measures"][0] == ["engine", "measure", "base", "new"]
    assert ["openvino-fp32", "size", "116.0 kB", "50.0 kB -56.9 %, better"] in page.tables["measures"]
    assert "| openvino-fp32 | size | 116.0 kB | 50.0 kB<br>-56.9 %, better |" in markdown.read_text()
    assert rir("compare", *runs, "--html", html).code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "Missing argument"),
        (["base"], 2, "name at least two runs"),
        (["base", "base"], 2, "is named twice"),
        (["base", "base/run.json"], 2, "'base/run.json' is named twice"),
        (["base", "./new/../base"], 2, "is named twice"),
        (["base", "absent"], 2, "is not a folder"),
        (["base", "."], 5, "has no run.json"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str], code: int, words: str, runs: list[Path], rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    ran = rir("compare", *arguments)
    assert ran.code == code
    assert words in ran.err
