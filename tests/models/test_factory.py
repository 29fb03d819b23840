from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.factory import load_factory

CODE = """
import torch

def good():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).train()

def with_integers():
    model = good()
    model.register_buffer("steps", torch.tensor([1, 2]))
    return model

def with_mask():
    model = good()
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    return model

def no_model():
    return 3

def needs_an_argument(width):
    return good()

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_networks.py").write_text(CODE)
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_networks", "my_broken"):
        sys.modules.pop(name, None)
    return tmp_path


def test_a_factory_of_the_current_folder() -> None:
    before = list(sys.path)
    model, _ = load_factory("my_networks:good")
    assert isinstance(model, torch.nn.Sequential)
    assert not model.training
    assert sys.path == before


def test_a_factory_of_an_installed_package() -> None:
    assert isinstance(load_factory("torch.nn:Identity")[0], torch.nn.Identity)


@pytest.mark.parametrize("factory", ["good", "with_integers"])
def test_weights(factory: str, folder: Path) -> None:
    state = load_factory(f"my_networks:{factory}")[0].state_dict()
    state["0.weight"] = torch.arange(6.0).reshape(2, 3)
    torch.save({"state_dict": state}, folder / "w.pt")
    found = load_factory(f"my_networks:{factory}", folder / "w.pt")[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_weights_that_do_not_fit(folder: Path) -> None:
    torch.save({"0.weight": torch.ones(3, 3)}, folder / "w.pt")
    with pytest.raises(InputError, match=r"missing 0.bias.*0.weight is float \[3, 3\] where float \[2, 3\]"):
        load_factory("my_networks:good", folder / "w.pt")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_networks", "package.module:factory"),
        (":good", "package.module:factory"),
        ("my_networks:", "package.module:factory"),
        ("my_networks:good()", "package.module:factory"),
        ("my_network:good", "importing 'my_network' failed"),
        ("my_broken:good", "a_module_that_is_not_there"),
        ("..relative:good", "importing '..relative' failed"),
        ("my_networks:god", "has no function 'god'"),
        ("my_networks:number", "has no function 'number'"),
        ("my_networks:no_model", "returned int"),
        ("my_networks:needs_an_argument", "without arguments"),
    ],
)
def test_what_goes_wrong(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_factory(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_mask_may_hold_infinities_and_a_weight_may_not(suffix: str, folder: Path) -> None:
    from safetensors.torch import save_file

    def saved(**changed: torch.Tensor) -> Path:
        state = {**load_factory("my_networks:with_mask")[0].state_dict(), **changed}
        path = folder / f"w{suffix}"
        torch.save(state, path) if suffix == ".pt" else save_file(state, path)
        return path

    loaded, _ = load_factory("my_networks:with_mask", saved())
    assert loaded.mask.tolist() == [0.0, float("-inf")]
    infinite = torch.full((2, 3), float("inf"))
    for name, tensor in (("0.weight", infinite), ("1.running_mean", infinite[0, :2]), ("mask", infinite[0, :2] * 0)):
        with pytest.raises(InputError, match=f"{name} in .* holds NaN or infinite values"):
            load_factory("my_networks:with_mask", saved(**{name: tensor}))
