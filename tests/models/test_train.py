from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rir_deploy.errors import BackendError, InputError, UsageError
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import load_checkpoint
from rir_deploy.models.train import Progress, TrainData, TrainOptions, train
from tests.models import tiny_training
from tests.models.tiny_training import CONFIG, OPTIONS, noise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(CONFIG, noise(), OPTIONS, folder=folder)
    return folder


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["in an epoch", "while writing"])
def test_killed_and_resumed_gives_the_same_bytes(moment: str, uninterrupted: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", tiny_training.__name__, str(tmp_path), str(torch.get_num_threads()), moment]
    killed = subprocess.run(command, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "model.safetensors").exists()
    result = train(CONFIG, noise(), OPTIONS, folder=tmp_path)
    assert result.resumed_epochs == 2
    assert model_bytes(tmp_path) == model_bytes(uninterrupted)


def test_same_seed_same_bytes_and_another_seed_others(uninterrupted: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # the caller's random numbers play no part
    train(CONFIG, noise(), OPTIONS, folder=tmp_path / "same")
    assert model_bytes(tmp_path / "same") == model_bytes(uninterrupted)
    train(CONFIG, noise(), dataclasses.replace(OPTIONS, seed=6), folder=tmp_path / "other")
    assert model_bytes(tmp_path / "other") != model_bytes(uninterrupted)


def test_the_random_numbers_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(CONFIG, noise(), dataclasses.replace(OPTIONS, epochs=1), folder=tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_a_finished_training_is_not_repeated(uninterrupted: Path) -> None:
    before = model_bytes(uninterrupted)
    steps: list[Progress] = []
    result = train(CONFIG, noise(), OPTIONS, folder=uninterrupted, on_step=steps.append)
    assert (result.resumed_epochs, steps, len(result.history)) == (4, [], 4)
    assert model_bytes(uninterrupted) == before


def test_progress(tmp_path: Path) -> None:
    steps: list[Progress] = []
    result = train(CONFIG, noise(), OPTIONS, folder=tmp_path, on_step=steps.append)
    assert [(p.epoch, p.step) for p in steps] == [(epoch, step) for epoch in (1, 2, 3, 4) for step in (1, 2, 3)]
    assert {(p.epochs, p.steps) for p in steps} == {(4, 3)}
    assert steps[0].learning_rate == pytest.approx(0.05 / 25)
    assert [(e.loss, e.accuracy) for e in result.history] == [(p.loss, p.accuracy) for p in steps[2::3]]
    assert all(0 <= p.accuracy <= 1 and p.loss > 0 for p in steps)


def test_the_checkpoint_records_what_it_scores(uninterrupted: Path) -> None:
    loaded = load_checkpoint(uninterrupted / "model.safetensors")
    data = noise()
    with torch.no_grad():
        logits = loaded.model(torch.from_numpy(data.normalize(data.test_images)))
    top1 = float((logits.argmax(1).numpy() == data.test_labels).mean())
    assert loaded.accuracy == {"top1": top1, "dataset": "noise", "n": 10}
    assert loaded.recipe == {"mean": [0.5]}
    assert loaded.config == CONFIG


def test_one_step_by_hand(tmp_path: Path) -> None:
    """Two epochs of one batch with momentum and weight decay, recomputed with plain tensors from the same start."""
    options = TrainOptions(
        epochs=2,
        batch_size=24,
        learning_rate=0.1,
        momentum=0.5,
        weight_decay=0.1,
        milestones=(1,),
        gamma=0.5,
        crop_padding=0,
        flip=False,
        precision="fp32",
        seed=5,
    )
    config = dataclasses.replace(CONFIG, head="conv1x1", mlp_widths=None)
    data = noise()
    train(config, data, options, folder=tmp_path)
    from rir_deploy.models.rir import RiR

    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = RiR(config).train()
    images, labels = torch.from_numpy(data.normalize(data.train_images)), torch.from_numpy(data.train_labels)
    velocity = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for rate in (0.1, 0.05):
        log_p = model(images).log_softmax(1)
        loss = -log_p[torch.arange(24), labels].mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
                velocity[name] = 0.5 * velocity[name] + gradient + 0.1 * parameter
                parameter -= rate * velocity[name]
    found = load_checkpoint(tmp_path / "model.safetensors").model.state_dict()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "config", "seed", "words"),
    [
        ({"learning_rate": 0.01, "epochs": 9}, {}, 0, r"other options \(epochs, learning_rate\)"),
        ({}, {"shortcut": "projection"}, 0, r"other config \(shortcut\)"),
        ({}, {}, 1, "other data"),
    ],
)
def test_another_training_is_not_continued(
    options: dict[str, Any], config: dict[str, Any], seed: int, words: str, uninterrupted: Path
) -> None:
    before = model_bytes(uninterrupted)
    with pytest.raises(UsageError, match=words):
        train(
            dataclasses.replace(CONFIG, **config),
            noise(seed),
            dataclasses.replace(OPTIONS, **options),
            folder=uninterrupted,
        )
    assert model_bytes(uninterrupted) == before


@pytest.mark.parametrize("content", [b"", b"garbage", "truncated"])
def test_a_damaged_state_is_refused(content: Any, uninterrupted: Path, tmp_path: Path) -> None:
    state = (uninterrupted / "training.safetensors").read_bytes()
    (tmp_path / "training.safetensors").write_bytes(state[:-5] if content == "truncated" else content)
    with pytest.raises(InputError, match=r"training\.safetensors"):
        train(CONFIG, noise(), OPTIONS, folder=tmp_path)


def test_a_checkpoint_is_no_state(uninterrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "training.safetensors").write_bytes(model_bytes(uninterrupted))
    with pytest.raises(InputError, match="remove it to start over"):
        train(CONFIG, noise(), OPTIONS, folder=tmp_path)


def test_a_model_from_elsewhere_is_kept(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="was not trained here"):
        train(CONFIG, noise(), OPTIONS, folder=tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_the_state_is_no_pickle(uninterrupted: Path) -> None:
    tensors = load_file(uninterrupted / "training.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"model", "momentum"}
    assert sorted(entry.name for entry in uninterrupted.iterdir()) == ["model.safetensors", "training.safetensors"]


def test_training_without_momentum_resumes(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, momentum=0.0, epochs=1)
    train(CONFIG, noise(), options, folder=tmp_path)
    assert train(CONFIG, noise(), options, folder=tmp_path).resumed_epochs == 1


def test_threads_are_set_inside_and_given_back(tmp_path: Path) -> None:
    before, inside = torch.get_num_threads(), set()
    options = dataclasses.replace(OPTIONS, epochs=1, threads=before + 1)
    train(CONFIG, noise(), options, folder=tmp_path, on_step=lambda _: inside.add(torch.get_num_threads()))
    assert (inside, torch.get_num_threads()) == ({before + 1}, before)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_precision(precision: str, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, precision=precision, epochs=1, label_smoothing=0.1)
    train(CONFIG, noise(), options, folder=tmp_path)
    assert {
        tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items() if "batches" not in name
    } == {torch.float32}


def test_divergence_is_said(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, learning_rate=1000.0, schedule="step", weight_decay=1.0, epochs=60)
    with pytest.raises(UsageError, match="lower learning_rate"):
        train(CONFIG, noise(), options, folder=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no device 'cuda:7'"):
        train(CONFIG, noise(), dataclasses.replace(OPTIONS, device="cuda:7"), folder=tmp_path)


def test_data_that_does_not_suit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size"):
        train(dataclasses.replace(CONFIG, image_size=(8, 8)), noise(), OPTIONS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_digits_are_learnt(tmp_path: Path) -> None:
    """scikit-learn's digits, every fourth one for the test: 97 % and more."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    test = np.arange(len(images)) % 4 == 0

    def normalize(batch: Any) -> Any:
        return (batch.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.306) / 0.376

    data = TrainData("digits", images[~test], digits.target[~test], images[test], digits.target[test], normalize)
    options = TrainOptions(
        epochs=12,
        threads=1,
        batch_size=64,
        learning_rate=0.2,
        weight_decay=5e-4,
        schedule="onecycle",
        crop_padding=1,
        flip=False,
    )
    result = train(preset("rir-digits", in_channels=1, image_size=(8, 8)), data, options, folder=tmp_path)
    assert result.test_images == 450
    assert result.top1 >= 0.97
    assert json.loads(json.dumps(load_checkpoint(result.checkpoint).accuracy))["top1"] == result.top1
