"""A run: what it writes, that it resumes, that it repeats itself to the byte."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.errors import InputError, UsageError
from rir_deploy.pipeline.bench import BenchRequest
from rir_deploy.pipeline.evaluation import SearchRequest
from rir_deploy.pipeline.plan import BenchPlan, Plan, read_plan
from rir_deploy.pipeline.run import run_plan
from rir_deploy.pipeline.steps import RunFolder
from rir_deploy.recipe import packaged_recipes
from tests.conftest import Made, Runner
from tests.pipeline.killing import contents, kill_run

# Steps on record: 15 or so are all.
KILLED_AFTER = (0, 1, 3, 5, 8)
# Only what needs no GPU and no GPU builder: the TensorRT side has tests of its own.
PLAN = """
recipe = "digits.toml"
checkpoint = "{checkpoint}"
backends = ["onnxruntime"]
[bench]
duration_s = 0
"""


def write_plan(folder: Path, checkpoint: Path, text: str = PLAN) -> Path:
    recipe = packaged_recipes()["digits"].read_text().replace("samples = 512", "samples = 64")
    (folder / "digits.toml").write_text(recipe)
    path = folder / "deploy.toml"
    path.write_text(text.format(checkpoint=checkpoint))
    return path


def hashes(run: Path) -> dict[str, str]:
    return {str(p.relative_to(run)): sha256_file(p) for p in sorted((run / "graphs").rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def finished(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    plan = read_plan(write_plan(folder, made.checkpoint))
    return folder / "run", run_plan(plan, folder / "run")


def test_the_record_names_every_file_with_its_parents(finished: tuple[Path, dict[str, Any]], made: Made) -> None:
    run, record = finished
    assert record == json.loads((run / "run.json").read_text())
    files = {entry["path"]: entry for entry in record["files"]}
    for path, entry in files.items():
        assert entry["sha256"] == sha256_file(run / path)
        assert entry["size_bytes"] == (run / path).stat().st_size
    fp32 = files["graphs/fp32.onnx"]
    assert fp32["parents"] == [sha256_file(made.checkpoint)]
    assert fp32["sha256"] in files["graphs/int8-cpu.onnx"]["parents"]
    assert files["graphs/int8-cpu.ranges.json"]["sha256"] in files["graphs/int8-cpu.onnx"]["parents"]
    assert files["engines/onnxruntime-int8/graph.onnx"]["parents"] == [files["graphs/int8-cpu.onnx"]["sha256"]]
    assert {engine["name"]: engine["status"] for engine in record["engines"]} == {
        f"onnxruntime-{precision}": "verified" for precision in ("fp32", "fp16", "int8")
    }
    assert (run / "report.html").exists()


def test_the_record_names_no_path_of_its_folder(finished: tuple[Path, dict[str, Any]]) -> None:
    run, record = finished
    assert str(run) not in json.dumps(record)


def test_a_second_call_does_nothing_again(
    finished: tuple[Path, dict[str, Any]], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, record = finished
    work = {
        "run_steps": ("export_file",),
        "run_graphs": ("calibrate", "calibrate_int8", "find_sensitivity", "lower_precision"),
        "run_engines": ("build_engine", "verify_files"),
    }
    for module, names in work.items():
        for name in names:
            monkeypatch.setattr(f"rir_deploy.pipeline.{module}.{name}", None)  # calling any of them would raise
    again = run_plan(read_plan(write_plan(run.parent, made.checkpoint)), run, report=False)
    changing = ("created",)
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in record.items() if k not in changing
    }


def test_another_folder_gets_the_same_bytes(finished: tuple[Path, dict[str, Any]], made: Made, tmp_path: Path) -> None:
    run, _ = finished
    plan = read_plan(write_plan(tmp_path, made.checkpoint))
    run_plan(plan, tmp_path / "again", report=False)
    assert hashes(tmp_path / "again") == hashes(run)


def test_a_changed_file_is_made_again(finished: tuple[Path, dict[str, Any]], made: Made, tmp_path: Path) -> None:
    import shutil

    run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "graphs/int8-cpu.onnx").write_bytes(b"tampered")
    plan = read_plan(write_plan(tmp_path, made.checkpoint))
    run_plan(plan, copy, report=False)
    assert hashes(copy) == hashes(run)


def test_a_killed_run_continues_to_the_same_result(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Five times in one folder, each a little after another step; benchmarks/kill_run.py does it fifty times."""
    run, _ = finished
    plan, rng = run.parent / "deploy.toml", random.Random(0)
    ended = [kill_run(plan, tmp_path / "run", rng.uniform(0, 0.3), steps) for steps in KILLED_AFTER]
    assert all(one.killed for one in ended)
    assert len({one.step for one in ended}) >= 4  # it did get on between them
    record = run_plan(read_plan(plan), tmp_path / "run")
    assert record["passed"]
    assert {engine["status"] for engine in record["engines"]} == {"verified"}
    assert contents(tmp_path / "run") == contents(run)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path)
    (tmp_path / "engines" / ".x.abc.part").mkdir(parents=True)
    RunFolder(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_an_engine_that_had_made_room_when_the_run_was_killed_is_put_back(tmp_path: Path) -> None:
    """Between the two renames of a file system that cannot exchange names."""
    RunFolder(tmp_path)
    (tmp_path / "engines" / ".any.0123abcd.old.part" / "old").mkdir(parents=True)
    (tmp_path / "engines" / ".any.0123abcd.part" / "new").mkdir(parents=True)
    RunFolder(tmp_path)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["any"]
    assert [path.name for path in (tmp_path / "engines" / "any").iterdir()] == ["old"]


def test_a_folder_that_is_no_runs_is_left_alone(made: Made, rir: Runner, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, made.checkpoint)
    mine = tmp_path / "mine"
    (mine / ".keep.part").mkdir(parents=True)
    (mine / "graphs").mkdir()
    (mine / "graphs" / "fp32.onnx").write_text("precious")
    ran = rir("run", plan, "-o", mine)
    assert ran.code == 2
    assert "not the folder of a run" in ran.err
    assert (mine / ".keep.part").exists()
    assert (mine / "graphs" / "fp32.onnx").read_text() == "precious"
    for output in (mine / "graphs" / "fp32.onnx", "/proc/run", ""):
        ran = rir("run", plan, "-o", output)
        assert ran.code == 2, ran.err
        assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.parametrize("damage", ["files", "result"])
def test_a_record_that_was_tampered_with_is_not_believed(
    damage: str, finished: tuple[Path, dict[str, Any]], made: Made, tmp_path: Path
) -> None:
    import shutil

    run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    data = json.loads((copy / "steps.json").read_text())
    data["steps"]["export"][damage] = {}
    (copy / "steps.json").write_text(json.dumps(data))
    record = run_plan(read_plan(write_plan(tmp_path, made.checkpoint)), copy, report=False)
    assert record["passed"]
    assert hashes(copy) == hashes(run)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        RunFolder(tmp_path)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", InputError, "recipe"),
        ("recipe = 3", InputError, "recipe"),
        ("recipe = 'digits'\nbackend = 'x'", InputError, "unknown key 'backend'"),
        ("recipe = 'digits'\nbackends = ['openvin']", UsageError, "did you mean 'openvino'"),
        ("recipe = 'digits'\nprecisions = []", InputError, "empty"),
        ("recipe = 'digits'\nbatch = [1, 2]", InputError, "min, opt, max"),
        ("recipe = 'digits'\nbatch = [4, 2, 8]", UsageError, "min <= opt <= max"),
        ("recipe = 'digits'\n[bench]\nduration = 1", InputError, "unknown key 'duration'"),
        ("recipe = 'digits'\n[bench]\nmode = 'throughpt'", UsageError, "did you mean 'throughput'"),
        ("recipe = 'digits'\n[bench]\nstreams = 'two'", InputError, "streams must be"),
        ("recipe = 'digits'\n[bench]\ncuda_graph = 1", InputError, "cuda_graph must be true or false, not 1"),
        ("recipe = 'digits'\n[bench]\ntransfers = 'no'", InputError, "transfers must be true or false, not 'no'"),
        ("recipe = ", InputError, "not readable TOML"),
        ("recipe = 'digits'\nunfolded = 1", InputError, "unfolded must be true or false"),
        ("recipe = 'digits'\nsensitivity = 'yes'", InputError, "sensitivity must be true or false"),
        ("recipe = 'digits'\nmax_drop = 1", InputError, "max_drop (points of top-1) and eval_data go"),
        ("recipe = 'digits'\neval_data = 'x.zip'", InputError, "eval_data stands alone"),
        ("recipe = 'digits'\nmax_drop = 'x'\neval_data = 'x.zip'", InputError, "max_drop must be a number"),
        ("recipe = 'digits'\nmax_drop = 100\neval_data = 'x.zip'", UsageError, "100 is not a number of points"),
        ("recipe = 'digits'\nsensitivity = false\nmax_drop = 1\neval_data = 'x.zip'", InputError, "needs the ranking"),
    ],
)
def test_a_plan_that_is_wrong(text: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    path = tmp_path / "deploy.toml"
    path.write_text(text)
    with pytest.raises(error) as caught:
        read_plan(path)
    assert words in str(caught.value)


def test_a_plan_says_how_engines_are_timed(tmp_path: Path) -> None:
    path = tmp_path / "deploy.toml"
    path.write_text("recipe = 'digits'\n[bench]\nmode = 'both'\nstreams = 4\nthreads = 2")
    assert read_plan(path).bench == BenchPlan(threads=2, mode="both", streams=4)
    path.write_text("recipe = 'digits'\n[bench]\ncuda_graph = true\ntransfers = false")
    assert read_plan(path).bench == BenchPlan(cuda_graph=True, transfers=False)


def test_engines_are_timed_on_a_gpu_as_the_plan_says(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way is a step of its own: times of another way are not taken for it."""
    asked: list[GpuOptions] = []

    def bench(request: BenchRequest, _progress: object) -> Any:
        asked.append(request.gpu)
        return SimpleNamespace(to_dict=lambda: {"asked": len(asked)})

    monkeypatch.setattr("rir_deploy.pipeline.run_engines.bench_files", bench)
    plan = Plan("digits", made.checkpoint, precisions=("fp32",), backends=("onnxruntime",), stages=False)
    ways = [{}, {}, {"cuda_graph": True}, {"transfers": False}, {"transfers": False}]
    found = [
        run_plan(dataclasses.replace(plan, bench=BenchPlan(**way)), tmp_path / "run", report=False)["bench"]["asked"]
        for way in ways
    ]
    assert found == [1, 1, 2, 3, 3]
    assert asked == [GpuOptions(), GpuOptions(cuda_graph=True), GpuOptions(transfers=False)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint": Path("missing.pt")}, "missing.pt"),
        ({"bench": BenchPlan(streams=2)}, "choose the pipelined mode"),
        ({"checkpoint": Path("deploy.toml")}, "deploy.toml"),
        ({"data": {"test": "nowhere.zip"}}, "nowhere.zip"),
        ({"recipe": "cifar10"}, "--data"),
        ({"search": SearchRequest(0.5, "nowhere.zip")}, "nowhere.zip"),
        ({"search": SearchRequest(0.5, "digits:test")}, "of 'digits:test' are among the test images of the run"),
        ({"search": SearchRequest(0.5, "digits:train")}, "of 'digits:train' are among the calibration images"),
    ],
)
def test_what_is_missing_is_missed_before_anything_is_done(
    change: dict[str, Any], words: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = read_plan(write_plan(tmp_path, made.checkpoint))
    with pytest.raises(UsageError) as caught:
        run_plan(dataclasses.replace(plan, **change), tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_command(made: Made, rir: Runner, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, made.checkpoint, PLAN.replace("backends", 'precisions = ["fp32"]\nbackends'))
    ran = rir("run", plan, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert "report.html" in ran.out
    ran = rir("run", plan, "-o", tmp_path / "run", "--json")
    assert [engine["name"] for engine in ran.json["engines"]] == ["onnxruntime-fp32"]
    files = ("--markdown", tmp_path / "run.md", "--junit", tmp_path / "run.xml")
    for _ in range(2):  # written anew each time
        assert rir("run", plan, "-o", tmp_path / "run", *files).code == 0
    suites = ElementTree.parse(tmp_path / "run.xml").getroot()
    assert [(one.get("name"), one.get("failures")) for one in suites][:2] == [("export", "0"), ("parity", "0")]
    assert (tmp_path / "run.md").read_text().startswith("## Deployment of model.safetensors: passed\n")


def test_files_that_cannot_be_written_are_refused_before_the_run(made: Made, rir: Runner, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, made.checkpoint)
    ran = rir("run", plan, "-o", tmp_path / "run", "--markdown", plan / "run.md")
    assert ran.code == 2
    assert "run.md" in ran.err
    assert not (tmp_path / "run").exists()
