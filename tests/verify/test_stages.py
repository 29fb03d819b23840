"""Every stage of a run in one table: its figures are those of verify, and a loss shows where it enters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parity_faults_int8 import inject
from rir_deploy.artifacts import sha256_file
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.plan import read_plan
from rir_deploy.pipeline.run import run_plan
from tests.conftest import Runner
from tests.verify.trained import Trained

PLAN = """
recipe = "digits"
checkpoint = "{checkpoint}"
backends = ["onnxruntime"]
precisions = ["fp32", "int8"]
[bench]
duration_s = 0
"""


@pytest.fixture(scope="module")
def run(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    (folder / "deploy.toml").write_text(PLAN.format(checkpoint=trained.checkpoint))
    run_plan(read_plan(folder / "deploy.toml"), folder / "run", report=False)
    return folder / "run"


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in record["stages"]}


def test_every_stage_is_there_with_what_it_was_made_from(run: Path, trained: Trained, rir: Runner) -> None:
    ran = rir("verify", trained.checkpoint, run, "--json")
    assert ran.code == 0, ran.err
    assert {stage["name"]: stage["made_from"] for stage in ran.json["stages"]} == {
        "PyTorch": None,
        "traced ONNX": "PyTorch",
        "folded ONNX": "traced ONNX",
        "int8-cpu ONNX": "folded ONNX",
        "onnxruntime-fp32": "folded ONNX",
        "onnxruntime-int8": "int8-cpu ONNX",
    }
    stages = by_name(ran.json)
    assert stages["onnxruntime-int8"]["against_parent"]["sqnr_db"] is None  # the same graph in the same runtime
    assert ran.json["images"] == 359
    # The figures are those that verify gives on the files.
    pairs = {
        ("int8-cpu ONNX", "against_pytorch"): (trained.checkpoint, run / "graphs/int8-cpu.onnx"),
        ("int8-cpu ONNX", "against_parent"): (run / "graphs/fp32.onnx", run / "graphs/int8-cpu.onnx"),
    }
    for (name, which), (reference, candidate) in pairs.items():
        alone = rir("verify", reference, candidate, "--json").json
        for key in ("agreement", "top1_drop", "sqnr_db", "kl_mean"):
            assert np.isclose(stages[name][which][key], alone[key], rtol=1e-6), key


def test_a_loss_shows_where_it_enters(run: Path, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    """A fault in the Q/DQ graph alone; the engine was built before it."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    graph = copy / "graphs/int8-cpu.onnx"
    save_onnx(inject(load_onnx(graph), "weights with a zero point of 16", "layers.1"), graph, force=True)
    refused = rir("verify", trained.checkpoint, copy)
    assert refused.code == 5
    assert "not as the run left it" in refused.err
    record = json.loads((copy / "run.json").read_text())
    next(file for file in record["files"] if file["path"] == "graphs/int8-cpu.onnx")["sha256"] = sha256_file(graph)
    (copy / "run.json").write_text(json.dumps(record))
    ran = rir("verify", trained.checkpoint, copy, "--json")
    assert ran.code == 3
    assert ran.json["largest_loss_at"] == "int8-cpu ONNX"
    assert all(text.startswith("int8-cpu ONNX: ") for text in ran.json["failures"])
    stages = by_name(ran.json)
    assert stages["folded ONNX"]["against_pytorch"]["passed"]
    assert stages["int8-cpu ONNX"]["against_parent"]["top1_drop"] > 20
    assert stages["onnxruntime-int8"]["against_pytorch"]["passed"]


def test_what_does_not_fit_is_refused(run: Path, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    alone = rir("verify", run)
    assert alone.code == 2
    assert "name it: rir-deploy verify model.safetensors" in alone.err
    other = rir("verify", trained.folded, run)
    assert other.code == 2
    assert "sha256 differs" in other.err
    assert rir("verify", trained.checkpoint, run, "--layers").code == 2
    assert rir("verify", trained.checkpoint, run, "--atol", "1").code == 2
    assert rir("verify", trained.checkpoint).code == 2
    (tmp_path / "run.json").write_text("[" * 5)
    assert rir("verify", trained.checkpoint, tmp_path).code == 5


def test_a_run_that_trained_its_checkpoint_stands_alone(
    run: Path, trained: Trained, rir: Runner, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "training").mkdir()
    shutil.copy(trained.checkpoint, copy / "training/model.safetensors")
    record = json.loads((copy / "run.json").read_text())
    record["model"]["checkpoint"] = "training/model.safetensors"
    (copy / "run.json").write_text(json.dumps(record))
    ran = rir("verify", copy)
    assert ran.code == 0, ran.err
    assert "passed at every stage" in ran.out
