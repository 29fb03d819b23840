"""What many tests share: a small network for the digits, its export and its engine, and the command line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: more threads in each only stand in the others' way
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Runner:
    """Runs ``rir-deploy ARGUMENTS`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self._capsys.readouterr()
        code = run_command(cli, [str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)


@pytest.fixture
def rir(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


@dataclass(frozen=True)
class Made:
    """A random network for 8x8 digits: its checkpoint, its folded export and an ONNX Runtime engine."""

    checkpoint: Path
    onnx: Path
    engine: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch = pytest.importorskip("torch")
    from rir_deploy.models import preset
    from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
    from rir_deploy.models.rir import RiR
    from rir_deploy.recipe import load_recipe

    folder = tmp_path_factory.mktemp("made")
    made = Made(folder / "model.safetensors", folder / "model.onnx", folder / "engine")
    torch.manual_seed(0)
    model = RiR(preset("rir-digits", in_channels=1, image_size=(8, 8)))
    record = CheckpointRecord(recipe=load_recipe("digits").to_dict())
    save_checkpoint(made.checkpoint, model, record=record)
    assert run_command(cli, ["export", str(made.checkpoint), "-o", str(made.onnx)]) == 0
    build = ["build-engine", str(made.onnx), "-o", str(made.engine), "--backend", "onnxruntime"]
    assert run_command(cli, build) == 0
    return made


@dataclass(frozen=True)
class Bundled:
    """A run of that network, in all precisions for ONNX Runtime, and its bundle."""

    run: Path
    file: Path


@pytest.fixture(scope="session")
def bundled(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    from rir_deploy.pipeline.plan import BenchPlan, Plan
    from rir_deploy.pipeline.run import run_plan

    folder = tmp_path_factory.mktemp("bundled")
    bundled = Bundled(folder / "run", folder / "model.zip")
    plan = Plan("digits", made.checkpoint, backends=("onnxruntime",), bench=BenchPlan(duration_s=0))
    run_plan(plan, bundled.run, report=False)
    assert run_command(cli, ["bundle", str(bundled.run), "-o", str(bundled.file)]) == 0
    return bundled
