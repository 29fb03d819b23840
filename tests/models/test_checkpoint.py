from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.checkpoint import METADATA_KEY, CheckpointRecord, load_checkpoint, save_checkpoint
from tests.models.networks import BASE, VARIANTS, config_of, images, network

RECORD = CheckpointRecord(accuracy={"top1": 0.5, "dataset": "none", "n": 4}, recipe={"mean": [0.5], "size": [12, 10]})


def written(folder: Path, change: dict[str, Any]) -> Path:
    """A checkpoint whose JSON record is changed behind the package's back."""
    config = config_of("plain")
    record = {"version": 1, "config": config.to_dict(), "accuracy": None, "recipe": None, **change}
    record = {key: value for key, value in record.items() if value != "absent"}
    path = folder / "changed.safetensors"
    save_file(network(config).state_dict(), path, metadata={METADATA_KEY: json.dumps(record)})
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded(variant: str, tmp_path: Path) -> None:
    config = config_of(variant)
    model = network(config)
    save_checkpoint(tmp_path / "a.safetensors", model, record=RECORD)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded.config, loaded.layout) == (config, "rir-deploy")
    assert (loaded.accuracy, loaded.recipe) == (RECORD.accuracy, RECORD.recipe)
    assert not loaded.model.training
    assert torch.equal(loaded.model(images(config)), model(images(config)))


def test_without_a_record(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", network(config_of("plain")))
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded.accuracy, loaded.recipe) == (None, None)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", network(config_of("plain")), record=RECORD)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_loading_leaves_the_random_numbers_of_the_caller_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", network(config_of("plain")))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(torch.rand(1), expected)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        save_checkpoint(path, network(config_of("plain")))
    assert path.read_text() == "mine"
    save_checkpoint(path, network(config_of("plain")), force=True)
    assert load_checkpoint(path).config == config_of("plain")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_another_image_size(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", network(config_of("plain")))
    assert load_checkpoint(tmp_path / "a.safetensors", (20, 22)).config.image_size == (20, 22)
    save_checkpoint(tmp_path / "b.safetensors", network(config_of("mlp")))
    with pytest.raises(InputError, match=r"head.hidden.weight is float \[9, 28\] where float \[9, 63\] is expected"):
        load_checkpoint(tmp_path / "b.safetensors", (16, 14))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint file"):
        load_checkpoint(tmp_path / "absent.safetensors")
    with pytest.raises(UsageError, match="no checkpoint file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "format 2"),
        ({"version": "absent"}, "lacks version"),
        ({"surprise": 1}, "unknown key"),
        ({"accuracy": [1]}, "accuracy"),
        ({"recipe": "text"}, "recipe"),
        ({"config": None}, "must be a table"),
        ({"config": {"num_classes": 5}}, "lacks"),
        ({"config": {**config_of("plain").to_dict(), "num_classes": -1}}, "num_classes"),
        ({"config": config_of("biases").to_dict()}, "missing stem.residual.conv.bias"),
    ],
)
def test_a_wrong_record(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(written(tmp_path, change))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"version": 1e999}'])
def test_metadata_that_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(network(config_of("plain")).state_dict(), path, metadata={METADATA_KEY: text})
    with pytest.raises(InputError, match="metadata"):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 500, -1])
def test_a_truncated_file(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, network(config_of("plain")))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_a_header_that_claims_gigabytes(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_an_absurd_config_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """The network it describes has 1.2e12 parameters, so that making it would end the test run."""
    huge = RiRConfig(**{**BASE, "stem": (8192, 8192), "stages": (Stage(8192, 8192, 500),)})
    with pytest.raises(InputError, match=r"missing layers\.4\.residual_to_residual\.weight") as caught:
        load_checkpoint(written(tmp_path, {"config": huge.to_dict()}))
    assert "more" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stem.residual.conv.weight", float("nan"), "NaN or infinite"),
        ("layers.1.transient_norm.running_mean", float("inf"), "NaN or infinite"),
        ("layers.1.transient_norm.running_var", -1.0, "negative variances"),
    ],
)
def test_a_value_that_is_not_finite_is_named(name: str, value: float, words: str, tmp_path: Path) -> None:
    model = network(config_of("plain"))
    model.state_dict()[name].flatten()[0] = value
    save_checkpoint(tmp_path / "a.safetensors", model)
    with pytest.raises(InputError, match=f"{name}.*{words}"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_quantised_weights_are_not_taken_for_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, network(config_of("plain")))
    record = json.dumps({"version": 1, "config": config_of("plain").to_dict(), "accuracy": None, "recipe": None})
    tensors = load_file(path)
    tensors["head.conv.weight"] = torch.ones_like(tensors["head.conv.weight"], dtype=torch.int8)
    save_file(tensors, path, metadata={METADATA_KEY: record})
    with pytest.raises(InputError, match=r"head\.conv\.weight is integer"):
        load_checkpoint(path)


def test_half_precision_weights_are_read_exactly(tmp_path: Path) -> None:
    model = network(config_of("plain"))
    model.half()
    save_checkpoint(tmp_path / "a.safetensors", model)
    loaded = load_checkpoint(tmp_path / "a.safetensors").model.state_dict()
    assert all(torch.equal(loaded[name], tensor.to(loaded[name].dtype)) for name, tensor in model.state_dict().items())
    assert loaded["head.conv.weight"].dtype == torch.float32
