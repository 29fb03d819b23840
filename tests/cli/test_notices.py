"""What the command line says of inputs that it takes in part: files that are not read, weights that are left aside."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.conftest import Made, Runner

CODE = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nets_with_averages.py").write_text(CODE)
    torch.manual_seed(1)
    layers = torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten()
    raw = torch.nn.Sequential(*layers, torch.nn.Linear(576, 10)).state_dict()
    ema = {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": ema, "epoch": 3}, tmp_path / "both.pth.tar")
    return tmp_path


def exported(rir: Runner, checkpoint: str, *options: str) -> tuple[dict[str, object], str, dict[str, object]]:
    network = ("--model", "nets_with_averages:network", "--recipe", "digits")
    ran = rir("export", checkpoint, *network, "-o", "x.onnx", "--force", "--json", *options)
    assert ran.code == 0, ran.err
    metadata = {prop.key: prop.value for prop in onnx.load("x.onnx").metadata_props}
    return ran.json, ran.err, json.loads(metadata["rir_deploy.provenance"])


def kernel() -> np.ndarray:
    """Of the convolution in what was exported."""
    (found,) = (one for one in onnx.load("x.onnx").graph.initializer if len(one.dims) == 4)
    return onnx.numpy_helper.to_array(found)


def test_averaged_weights_are_named_and_every_command_takes_the_choice(folder: Path, rir: Runner) -> None:
    states = torch.load("both.pth.tar", weights_only=True)
    told, err, record = exported(rir, "both.pth.tar", "--no-fold")
    assert "'state_dict_ema'" in err
    assert "--weights ema" in err
    assert told["notices"] == [err.partition("warning: ")[2].strip()]
    assert (told["weights"], record["weights"]) == ("state_dict", "state_dict")
    np.testing.assert_array_equal(kernel(), states["state_dict"]["0.weight"].numpy())

    told, err, record = exported(rir, "both.pth.tar", "--no-fold", "--weights", "ema")
    assert err == ""
    assert "notices" not in told
    assert (told["weights"], record["weights"]) == ("state_dict_ema", "state_dict_ema")
    np.testing.assert_array_equal(kernel(), states["state_dict_ema"]["0.weight"].numpy())

    network = ("--model", "nets_with_averages:network", "--recipe", "digits")
    same = rir("verify", "both.pth.tar", "x.onnx", *network, "--weights", "ema", "--layers", "--json")
    assert same.code == 0, same.err
    assert same.json["reference"]["weights"] == "state_dict_ema"
    other = rir("verify", "both.pth.tar", "x.onnx", *network, "--json")
    assert other.code == 3
    assert "also holds averaged weights" in other.json["notices"][0]
    build = ("build-engine", "both.pth.tar", "--backend", "onnxruntime", *network, "-o", "engine", "--no-fold")
    assert rir(*build, "--weights", "ema").code == 0
    Path("engine/graph.onnx").replace("x.onnx")
    np.testing.assert_array_equal(kernel(), states["state_dict_ema"]["0.weight"].numpy())
    timed = ("bench", "both.pth.tar", *network, "--rounds", "2", "--duration", "0.05", "--iterations", "3", "--json")
    ran = rir(*timed)
    assert ran.code == 0, ran.err
    assert len(ran.json["notices"]) == 1
    assert ran.err.count("also holds averaged weights") == 1
    refused = rir("bench", "both.pth.tar", *network, "--rounds", "1", "--weights", "emma")
    assert refused.code == 2
    assert "no weights under 'emma'" in refused.err


def test_inspect_says_which_weights(made: Made, rir: Runner) -> None:
    assert rir("inspect", made.checkpoint, "--json").json["weights"] is None
    assert rir("inspect", made.checkpoint, "--weights", "ema").code == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_files_that_are_not_read_are_counted_in_every_command(
    made: Made, as_json: bool, rir: Runner, tmp_path: Path
) -> None:
    rng, data = np.random.default_rng(0), tmp_path / "data.zip"
    with zipfile.ZipFile(data, "w") as archive:
        for place in range(64):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"{place % 10}/{place}.png")
            archive.writestr(f"{place % 10}/{place}.heic", b"x")
        archive.writestr("labels.csv", b"x")
    said = f"65 files of '{data}' are not read: 64 .heic, 1 .csv"
    out = tmp_path / "out"
    commands = [
        ("verify", made.checkpoint, made.onnx),
        ("quantize", made.onnx, "-o", f"{out}.q.onnx", "--method", "minmax", "--rounding", "nearest"),
        ("export", made.checkpoint, "-o", f"{out}.onnx"),
        ("build-engine", made.onnx, "-o", f"{out}.engine", "--int8", "--samples", "40", "--backend", "onnxruntime"),
    ]
    for command in commands:
        ran = rir(*command, "--data", data, *(["--samples", "40"] if command[0] == "quantize" else []), "--json")
        assert ran.code in (0, 3), ran.err
        assert ran.err.count(said) == 1
        assert ran.json["notices"] == [said]
        if not as_json:
            return


def test_one_class_is_no_calibration(made: Made, rir: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "3"
    folder.mkdir(parents=True)
    for place in range(40):
        pixels = np.random.default_rng(place).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        (folder.parent / "4").mkdir(exist_ok=True)
        (folder.parent / "4" / f"{place}.heic").write_bytes(b"x")  # the other class cannot be read
    for data in (folder.parent, folder):
        ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--data", data, "--samples", "32")
        assert ran.code == 5
        assert "all of one class" in ran.err
        assert not (tmp_path / "q.onnx").exists()


def test_a_plan_takes_the_choice(tmp_path: Path) -> None:
    from rir_deploy.errors import InputError
    from rir_deploy.pipeline.plan import read_plan

    plan = tmp_path / "deploy.toml"
    plan.write_text('recipe = "digits"\ncheckpoint = "both.pth.tar"\nweights = "ema"\n')
    assert read_plan(plan).weights == "ema"
    plan.write_text('recipe = "digits"\nweights = 3\n')
    with pytest.raises(InputError, match="weights must be a non-empty string"):
        read_plan(plan)
