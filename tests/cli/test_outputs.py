"""What a command writes never replaces what it reads, nor what a run is made of; whatever --force says."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path

import onnx
import pytest

from rir_deploy.cli import COMMANDS
from rir_deploy.cli.outputs import Command, OutputPath
from rir_deploy.recipe import load_recipe
from tests.cli.test_bad_input import refused
from tests.conftest import Made, Runner
from tests.report.sample import sample

PLAN = """
recipe = "recipe.toml"
checkpoint = "model.safetensors"
data = {test = "images.npz"}
"""
# Names of files that are there and need no content: all is refused before anything is read.
FILES = (
    "images.npz",
    "images/0/a.png",
    "cifar/test_batch.bin",
    "ranges.json",
    "ranges.safetensors",
    "recipe.toml",
    "base.json",
    "run/report.html",
    "run/graphs/fp32.onnx",
    "run/engines/a/manifest.json",
    "run/training/model.safetensors",
)


@pytest.fixture
def folder(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one of everything that a command reads."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made.checkpoint, "model.safetensors")
    shutil.copy(made.onnx, "model.onnx")
    shutil.copytree(made.engine, "engine")
    for name in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("deploy.toml").write_text(PLAN)
    Path("run/run.json").write_text(json.dumps(sample()))
    Path("run/steps.json").write_text('{"format": 1, "steps": {}}')
    Path("link").symlink_to("model.safetensors")
    Path("elsewhere").symlink_to("run")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


INPUTS = [
    ("verify model.safetensors engine --flips model.safetensors --force", "the input 'model.safetensors'"),
    ("verify model.safetensors engine --flips link --force", "the input 'model.safetensors'"),
    ("verify link engine --flips model.safetensors --force", "the input 'link'"),
    ("verify model.safetensors engine --flips ./run/../model.safetensors --force", "the input 'model.safetensors'"),
    ("verify model.onnx engine --data images.npz --flips images.npz --force", "the input 'images.npz'"),
    ("verify model.onnx engine --data images --flips images/0/a.png --force", "a file of the input 'images'"),
    ("verify model.onnx engine --data cifar:test --flips cifar/test_batch.bin --force", "a file of the input 'cifar'"),
    ("verify model.onnx engine --recipe ./recipe.toml --flips recipe.toml --force", "the input 'recipe.toml'"),
    ("verify model.onnx engine --flips engine/graph.onnx --force", "a file of the input 'engine'"),
    ("bench engine --export-times engine/manifest.json --force", "a file of the input 'engine'"),
    ("bench model.onnx engine --export-times model.onnx --force", "the input 'model.onnx'"),
    ("bench engine --baseline base.json --export-times base.json --force", "the input 'base.json'"),
    ("bench engine --runtime-cache engine/graph.onnx", "a file of the input 'engine'"),
    ("bench engine --runtime-cache engine/manifest.json", "a file of the input 'engine'"),
    ("bench images --runtime-cache images/0/a.png", "a file of the input 'images'"),
    ("export model.safetensors -o model.safetensors --force", "the input 'model.safetensors'"),
    ("fold model.onnx -o model.onnx --force", "the input 'model.onnx'"),
    ("fold model.onnx -o model.onnx", "the input 'model.onnx'"),
    ("quantize model.onnx -o model.onnx --force", "the input 'model.onnx'"),
    ("quantize model.onnx -o q.onnx --ranges ranges.json --save-ranges ranges.json --force", "the input 'ranges.json'"),
    ("quantize model.onnx -o ranges.safetensors --ranges ranges.json --force", "the input 'ranges.safetensors'"),
    ("quantize model.onnx -o q.onnx --sensitivity model.onnx --force", "the input 'model.onnx'"),
    ("quantize model.onnx -o q.onnx --eval-data images.npz --sensitivity images.npz --force", "the input 'images.npz'"),
    ("build-engine model.onnx -o engine --timing-cache model.onnx --force", "the input 'model.onnx'"),
    ("build-engine engine/graph.onnx -o engine --force", "'engine/graph.onnx', which lies in it"),
    ("build-engine model.onnx -o engine --timing-cache engine/cache --force", "'engine/cache', which lies in it"),
    ("train digits -o images --data images", "the input 'images'"),
    ("bundle run -o run --force", "the input 'run'"),
    ("run deploy.toml -o new --junit deploy.toml", "the input 'deploy.toml'"),
    ("run deploy.toml -o new --junit model.safetensors", "/model.safetensors'"),
    ("run deploy.toml -o new --markdown images.npz", "/images.npz'"),
    ("run deploy.toml -o new --markdown recipe.toml", "/recipe.toml'"),
    ("compare run/run.json other --html run/run.json --force", "the input 'run/run.json'"),
]
RUNS = [
    ("report run --junit run/run.json --force", "a file of the run 'run'"),
    ("report run -o run/run.json --force", "a file of the run 'run'"),
    ("report run --markdown run/report.html --force", "a file of the run 'run'"),
    ("report run -o run/engines/report.html --force", "a file of the run 'run'"),
    ("report elsewhere --junit run/run.json --force", "a file of the run 'elsewhere'"),
    ("compare run other --html run/run.json --force", "a file of the run 'run'"),
    ("compare run/run.json other --html run/report.html --force", "a file of the run 'run'"),
    ("bundle run -o run/graphs/model.zip", "a file of the run 'run'"),
    ("export model.safetensors -o run/graphs/fp32.onnx --force", "/run'"),
    ("verify model.onnx run/engines/a --flips run/engines/a/flips.json", "/run'"),
    ("run deploy.toml -o run --junit run/run.json", "a file of the run 'run'"),
    ("run deploy.toml -o run --junit elsewhere/steps.json", "a file of the run 'run'"),
    ("run deploy.toml -o new --junit new/run.json", "a file of the run 'new'"),
    ("run deploy.toml -o new --markdown new/report.html", "a file of the run 'new'"),
    ("run deploy.toml -o new --markdown new/engines/run.md", "a file of the run 'new'"),
]
OUTPUTS = [
    ("report run --junit one --markdown one", "--markdown and --junit name one file"),
    ("compare run other --html one --junit ./one", "--html and --junit name one file"),
    ("run deploy.toml -o new --junit new", "-o and --junit name one file"),
    ("run deploy.toml -o new/run --junit new", "'new/run', which lies in it"),
    ("quantize model.onnx -o q.onnx --sensitivity q.onnx --force", "-o and --sensitivity name one file"),
    ("quantize model.onnx -o r.safetensors --save-ranges r.json", "-o and --save-ranges name one file"),
]


# What an input consists of, by names that lead there in other ways.
PARTS = [
    ("fold beside.onnx -o beside.data --force", "beside.data', which the input 'beside.onnx' reads"),
    ("fold beside.onnx -o ./run/../beside.data --force", "which the input 'beside.onnx' reads"),
    ("fold beside.onnx -o link.data --force", "which the input 'beside.onnx' reads"),
    ("fold beside.onnx -o hard.data --force", "which the input 'beside.onnx' reads"),
    ("fold elsewhere.onnx -o beside.data --force", "which the input 'elsewhere.onnx' reads"),
    ("quantize beside.onnx -o q.onnx --save-ranges beside.data --force", "which the input 'beside.onnx' reads"),
    ("verify beside.onnx engine --flips beside.data --force", "which the input 'beside.onnx' reads"),
    ("verify model.onnx beside.onnx --flips beside.data --force", "which the input 'beside.onnx' reads"),
    ("bench beside.onnx --export-times beside.data --force", "which the input 'beside.onnx' reads"),
    ("bench beside.onnx --runtime-cache beside.data", "which the input 'beside.onnx' reads"),
    ("build-engine beside.onnx -o beside.data --force", "which the input 'beside.onnx' reads"),
    ("build-engine deep.onnx -o deep --force", "which the input 'deep.onnx' reads"),
    ("fold copy.onnx -o old.onnx", "which the input 'copy.onnx' reads"),
    ("fold model.onnx -o hard.onnx --force", "the input 'model.onnx'"),
    ("export model.safetensors -o hard.safetensors --force", "the input 'model.safetensors'"),
    ("verify model.onnx engine --data links --flips images/0/a.png --force", "which the input 'links' reads"),
    ("verify model.onnx engine --data links --flips far/b.png --force", "which the input 'links' reads"),
    ("verify model.onnx engine --recipe ./own.toml --flips images.npz --force", "which the input 'own.toml' reads"),
    ("verify model.onnx engine --recipe ./own.toml --flips images/0/a.png --force", "which the input 'own.toml' reads"),
]


@pytest.fixture
def parts(folder: Path) -> Path:
    """Models with their weights beside them, folders of links, and a recipe that names images."""
    for name, data in (("beside", "beside.data"), ("deep", "deep/weights"), ("copy", f"old.onnx.{'a' * 16}.data")):
        Path(data).parent.mkdir(exist_ok=True)
        model = onnx.load("model.onnx")
        onnx.save(model, f"{name}.onnx", save_as_external_data=True, location=data, size_threshold=0)
    Path("link.data").symlink_to("beside.data")
    Path("elsewhere.onnx").symlink_to("beside.onnx")
    for hard, name in (
        ("hard.data", "beside.data"),
        ("hard.onnx", "model.onnx"),
        ("hard.safetensors", "model.safetensors"),
    ):
        os.link(name, hard)
    for name in ("far/b.png", "links/1/own.png"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text(name)
    Path("links/0").symlink_to("../far")
    Path("links/1/a.png").symlink_to("../../images/0/a.png")
    Path("links/1/round").symlink_to("../..")
    own = load_recipe("digits").to_dict()
    Path("own.toml").write_text(
        f'classes = {json.dumps(own["classes"])}\n[data]\ntrain = "images"\ntest = "images.npz"\n[preprocess]\n'
        'size = [8, 8]\nmode = "L"\nmean = [0.5]\nstd = [0.5]\n'
    )
    return folder


@pytest.mark.skipif(os.name == "nt", reason="links")
@pytest.mark.parametrize(("line", "words"), PARTS, ids=lambda text: str(text))
def test_a_part_of_an_input_is_not_replaced(line: str, words: str, parts: Path, rir: Runner) -> None:
    before = contents(parts)
    refused(rir(*line.split()), 2, words, "choose another output")
    assert contents(parts) == before


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_what_is_no_part_of_an_input_is_replaced(parts: Path, rir: Runner) -> None:
    Path("other.data").write_text("other")
    Path("hard.data").unlink()  # a model whose weights have two names is refused by onnx
    for _ in range(2):
        assert rir("fold", "beside.onnx", "-o", "other.data", "--force").code == 0
    onnx.checker.check_model("other.data")


@pytest.mark.parametrize(("line", "words"), [*INPUTS, *RUNS, *OUTPUTS], ids=lambda text: str(text))
def test_it_is_refused_and_nothing_is_touched(line: str, words: str, folder: Path, rir: Runner) -> None:
    before = contents(folder)
    refused(rir(*line.split()), 2, words, "name one for each" if "name one file" in words else "choose another output")
    assert contents(folder) == before


def test_every_command_that_writes_is_looked_at() -> None:
    commands = {name: importlib.import_module(module).command for name, module in COMMANDS.items()}
    writing = {name for name, one in commands.items() if any(isinstance(p.type, OutputPath) for p in one.params)}
    assert writing == set(COMMANDS) - {"inspect", "doctor", "roofline"}
    assert all(isinstance(commands[name], Command) for name in writing)


def test_files_in_a_runs_folder_are_written_again_and_again(folder: Path, rir: Runner) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    for _ in range(2):
        ran = rir(*["report", "run", "--markdown", "run/run.md", "--junit", "run/run.xml", "--force"])
        assert ran.code == 0, ran.err
    assert Path("run/run.md").read_text().startswith("#")
    for page in ("run/report.html", "elsewhere/report.html"):
        Path("run/report.html").write_text("old")
        assert rir("report", "run", "-o", page).code == 2
        ran = rir("report", "run", "-o", page, "--force")
        assert ran.code == 0, ran.err
        assert "<html" in Path("run/report.html").read_text()
    assert rir("report", "run/run.json", "-o", "run/report.html", "--force").code == 0
    shutil.copytree("run", "other")
    before = contents(folder / "other")
    refused(rir("report", "run", "-o", "other/report.html", "--force"), 2, "a file of the run")
    assert contents(folder / "other") == before


def test_what_is_no_input_is_replaced_as_ever(folder: Path, rir: Runner) -> None:
    for name in ("engine/flips.json", "flips.json", "images.npz"):
        ran = rir("verify", "model.onnx", "engine", "--data", "digits:test", "--flips", name, "--force")
        assert ran.code == 0, ran.err
        assert json.loads(Path(name).read_text()) == []
    for _ in range(2):  # a name of a recipe and of images is no file of that name
        ran = rir("export", "model.safetensors", "-o", "digits", "--data", "digits", "--recipe", "digits", "--force")
        assert ran.code == 0, ran.err
    # As the manifest of a run's engine says how it is built again.
    shutil.copytree("engine", "run/engines/b")
    build = ("build-engine", "model.onnx", "--backend", "onnxruntime", "-o", "run/engines/b", "--force")
    ran = rir(*build)
    assert ran.code == 0, ran.err


def test_a_cache_beside_an_engine_is_kept(folder: Path, rir: Runner) -> None:
    Path("engine/kernels").write_text("cache")
    ran = rir("bench", "engine", "--runtime-cache", "engine/kernels", "--rounds", 1, "--duration", 0, "--warmup", 0)
    assert "would replace" not in ran.err  # ONNX Runtime has no such cache: that is said instead
    assert Path("engine/kernels").read_text() == "cache"


def test_a_run_writes_into_its_folder_again_and_again(
    folder: Path, rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def run_plan(_plan: object, output: Path, **_: object) -> object:
        asked.append(output)
        return sample()

    monkeypatch.setattr("rir_deploy.pipeline.run.run_plan", run_plan)
    for _ in range(2):
        ran = rir("run", "deploy.toml", "-o", "run", "--markdown", "run/run.md", "--junit", "run/run.xml", "--json")
        assert ran.code == 0, ran.err
        assert Path("run/run.xml").read_text().startswith("<?xml")
    assert asked == [Path("run")] * 2
