"""Tied weights, names under prefixes, and what is said where names do not fit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from rir_deploy.errors import InputError
from rir_deploy.models.fit import check_fit, fitted
from rir_deploy.models.tensor_files import read_tensors

PATH = Path("x.pt")


class Net(nn.Module):
    """``b`` is ``a`` again where they are tied."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        if tied:
            self.b.weight = self.a.weight


def loaded(path: Path, model: nn.Module) -> dict[str, Tensor]:
    return fitted(path, read_tensors(path).tensors, model.state_dict())


@pytest.mark.parametrize("into_tied", [True, False])
@pytest.mark.parametrize("form", ["pt", "pt of a wrapper", "save_model", "save_model of a wrapper", "copies"])
def test_tied_weights(form: str, into_tied: bool, tmp_path: Path) -> None:
    model = Net(tied=True)
    saved: nn.Module = nn.ModuleDict({"module": model}) if "wrapper" in form else model
    path = tmp_path / ("a.pt" if form.startswith("pt") else "a.safetensors")
    if form.startswith("pt"):
        torch.save(saved.state_dict(), path)
    elif form == "copies":
        save_file({name: tensor.clone() for name, tensor in saved.state_dict().items()}, path)
    else:
        save_model(saved, str(path))
    found = loaded(path, Net(tied=into_tied))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_a_twin_that_the_file_lacks_and_does_not_note(tmp_path: Path) -> None:
    model = Net(tied=True)
    save_file({name: t for name, t in model.state_dict().items() if name != "b.weight"}, tmp_path / "a.safetensors")
    assert torch.equal(loaded(tmp_path / "a.safetensors", Net(tied=True))["b.weight"], model.a.weight)
    with pytest.raises(InputError, match=r"missing b\.weight"):
        loaded(tmp_path / "a.safetensors", Net(tied=False))


def test_two_values_for_one_weight() -> None:
    """Whichever was loaded last would stay, without a word."""
    state = Net(tied=False).state_dict()
    with pytest.raises(InputError, match=r"different values for a.weight and b.weight, which are one tensor"):
        fitted(PATH, state, Net(tied=True).state_dict())


@pytest.mark.parametrize("ours", ["", "module.", "_orig_mod.", "model.", "net."])
@pytest.mark.parametrize("theirs", ["", "module.", "_orig_mod.module.", "model.", "backbone.", "lit.net."])
def test_prefixes_of_either_side(ours: str, theirs: str) -> None:
    state = Net(tied=False).state_dict()
    found = fitted(
        PATH, {theirs + name: t for name, t in state.items()}, {ours + name: t + 1 for name, t in state.items()}
    )
    assert found.keys() == {ours + name for name in state}
    assert all(torch.equal(found[ours + name], tensor) for name, tensor in state.items())


def test_a_network_whose_only_part_is_called_model() -> None:
    state = {"model.weight": torch.ones(2), "model.bias": torch.ones(2)}
    assert fitted(PATH, {"weight": torch.zeros(2), "bias": torch.zeros(2)}, state).keys() == state.keys()


@pytest.mark.parametrize(
    ("found", "missing", "near"),
    [
        (["encoder.conv1.weight", "head.weight"], "conv1.weight", "encoder.conv1.weight"),
        (["conv_1.weight", "fc.weight"], "conv1.weight", "conv_1.weight"),
        (["layer1.0.weigth", "layer4.1.beta"], "layer1.0.weight", "layer1.0.weigth"),
    ],
)
def test_the_nearest_name_of_the_other_side_is_shown(found: list[str], missing: str, near: str) -> None:
    expected = {missing: torch.ones(1), "other.bias": torch.ones(1)}
    with pytest.raises(InputError) as caught:
        check_fit(PATH, {name: torch.ones(1) for name in found}, expected)
    assert f"missing {missing} (the file has {near})" in str(caught.value)
    assert "unexpected" in str(caught.value)
    assert "(the model has " in str(caught.value)


def test_looking_for_names_takes_no_time() -> None:
    found = {f"block.{index}.weight": torch.ones(1) for index in range(100_000)}
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"missing a\.weight"):
        fitted(PATH, found, Net(tied=False).state_dict())
    assert time.perf_counter() - began < 5
