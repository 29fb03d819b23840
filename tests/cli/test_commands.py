"""Every command's good path, through the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from rir_deploy.artifacts import METADATA_KEY
from rir_deploy.cli import COMMANDS
from tests.conftest import Made, Runner


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, rir: Runner) -> None:
    ran = rir(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: rir-deploy {command}")
    assert "--json" in ran.out


def test_export_folds_and_records_where_it_comes_from(made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    ran = rir("export", made.checkpoint, "-o", output, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["fold"]["convs"] == {"before": 20, "after": 6}
    assert ran.json["check"]["passed"]
    assert ran.json["check"]["on"] == "100 images of digits:test"
    model = onnx.load(output)
    assert [node.op_type for node in model.graph.node].count("Conv") == 6
    record = json.loads({prop.key: prop.value for prop in model.metadata_props}[METADATA_KEY])
    assert record["parents"] == {"checkpoint": hashlib.sha256(made.checkpoint.read_bytes()).hexdigest()}
    assert record["stages"] == ["export", "fold"]
    assert record["recipe"]["name"] == "digits"
    assert not [prop.key for node in model.graph.node for prop in node.metadata_props if "torch" in prop.key]


def test_export_is_reproducible_to_the_byte(made: Made, rir: Runner, tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert rir("export", made.checkpoint, "-o", first, "--no-check").code == 0
    assert rir("export", made.checkpoint, "-o", second, "--no-check").code == 0
    assert first.read_bytes() == second.read_bytes() == made.onnx.read_bytes()


def test_raw_trace_then_fold_is_export(made: Made, rir: Runner, tmp_path: Path) -> None:
    raw, folded = tmp_path / "raw.onnx", tmp_path / "folded.onnx"
    assert rir("export", made.checkpoint, "-o", raw, "--no-fold").code == 0
    ran = rir("fold", raw, "-o", folded, "--require", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["convs"] == {"before": 20, "after": 6}
    assert ran.json["macs"]["after"] <= ran.json["macs"]["before"]
    assert ran.json["refused"] == []
    assert ran.json["modified"] is True
    again = rir("fold", folded, "-o", tmp_path / "again.onnx", "--json")
    assert again.json["modified"] is False
    ran = rir("verify", raw, folded, "--json")
    assert ran.code == 0
    assert ran.json["agreement"] == 1.0


def test_embedded_preprocessing_takes_camera_images(made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "camera.onnx"
    ran = rir("export", made.checkpoint, "-o", output, "--embed-preprocessing", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["check"]["passed"]
    inspected = rir("inspect", output, "--json").json
    assert inspected["input"] == {"name": "input", "dtype": "uint8", "shape": [None, 8, 8, 1]}
    ran = rir("verify", made.checkpoint, output, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["agreement"] == 1.0


def test_build_engine_from_checkpoint_and_verify(made: Made, rir: Runner, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    ran = rir("build-engine", made.checkpoint, "-o", engine, "--backend", "onnxruntime", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["backend"] == "onnxruntime"
    assert ran.json["precision"] == "fp32"
    assert ran.json["targets"] == []
    assert ran.json["size_bytes"] == (engine / "graph.onnx").stat().st_size
    manifest = json.loads((engine / "manifest.json").read_text())
    assert manifest["engine"]["sha256"] == hashlib.sha256((engine / "graph.onnx").read_bytes()).hexdigest()
    assert manifest["recipe"]["name"] == "digits"
    ran = rir("verify", made.checkpoint, engine, "--json")
    assert ran.code == 0, ran.err
    keys = ("passed", "agreement", "max_abs_error")
    assert [ran.json[key] for key in keys[:2]] == [True, 1.0]
    assert ran.json["reference"]["top1"] == ran.json["candidate"]["top1"]
    assert ran.json["max_abs_error"] <= 1e-5 * ran.json["max_abs_reference"]


def test_auto_backend_says_which(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("build-engine", made.onnx, "-o", tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["backend"] in ("tensorrt", "openvino", "onnxruntime")


def test_inspect_every_kind(made: Made, rir: Runner) -> None:
    assert rir("inspect", made.onnx, "--json").json["work"]["convs"] == 6
    assert rir("inspect", made.engine, "--json").json["backend"] == "onnxruntime"
    checkpoint = rir("inspect", made.checkpoint, "--json").json
    assert checkpoint["layout"] == "rir-deploy"
    assert checkpoint["input_shape"] == [1, 8, 8]
    for path in (made.onnx, made.engine, made.checkpoint):
        assert rir("inspect", path).code == 0


def test_model_option_runs_user_code(rir: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "import torch\n\n"
        "def small():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),\n"
        "                               torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    ran = rir("export", "--model", "my_models:small", "--recipe", "digits", "-o", "own.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["check"]["passed"]
    assert ran.json["layout"] == "my_models:small"


def test_verify_on_data_without_labels(made: Made, rir: Runner, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    ran = rir("verify", made.onnx, made.engine, "--data", tmp_path / "images.npz", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["images"] == 5
    assert ran.json["reference"]["top1"] is None
