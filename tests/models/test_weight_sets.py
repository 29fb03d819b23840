"""Checkpoints of trainings hold more than one network's weights, under names that wrappers have changed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.fit import check_fit
from rir_deploy.models.tensor_files import read_tensors

RAW = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "b.weight": torch.zeros(3)}
EMA = {name: tensor + 0.5 for name, tensor in RAW.items()}
PREFIXES = ("module.", "_orig_mod.", "model.")


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_prefixes_in_every_order_and_format(count: int, suffix: str, tmp_path: Path) -> None:
    for order in itertools.permutations(PREFIXES, count):
        path = tmp_path / f"a.{suffix}"
        (torch.save if suffix == "pt" else save_file)(prefixed(RAW, "".join(order)), path)
        assert same(read_tensors(path).tensors, RAW), order


def test_names_of_compiled_parts(tmp_path: Path) -> None:
    torch.save(
        {"a._orig_mod.weight": RAW["a.weight"], "b._fsdp_wrapped_module.weight": RAW["b.weight"]}, tmp_path / "a.pt"
    )
    assert list(read_tensors(tmp_path / "a.pt").tensors) == ["a.weight", "b.weight"]


@pytest.mark.parametrize(
    "key", ["ema", "params", "model_state", "network", "weights", "my_own", "trainer.state_dict", "model.state_dict"]
)
def test_the_only_set_is_taken_whatever_its_key(key: str, tmp_path: Path) -> None:
    content: Any = RAW
    for part in reversed(key.split(".")):
        content = {part: content, "epoch": 3, "name": "x", "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    torch.save(content, tmp_path / "a.pt")
    file = read_tensors(tmp_path / "a.pt")
    assert same(file.tensors, RAW)
    assert file.note is None


KEYS = [
    ("state_dict", "state_dict_ema"),  # timm
    ("model", "model_ema"),  # torchvision
    ("params", "params_ema"),  # BasicSR
    ("state_dict", "ema_state_dict"),  # MMEngine
    ("model", "ema"),
    ("net", "swa_model"),
    ("model_state", "modelEMA"),
    ("anything", "averaged_weights"),
]


@pytest.mark.parametrize(("raw", "ema"), KEYS)
@pytest.mark.parametrize("ema_first", [True, False])
def test_averaged_weights_beside_the_others(raw: str, ema: str, ema_first: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    pairs = [(raw, RAW), (ema, {**prefixed(EMA, "module."), "n_averaged": torch.tensor(5)})]
    torch.save({**dict(pairs[::-1] if ema_first else pairs), "epoch": 3}, path)
    plain = read_tensors(path)
    assert same(plain.tensors, RAW)
    assert plain.weights == raw
    assert plain.note is not None
    assert f"'{ema}'" in plain.note
    for wanted, state, key in (("model", RAW, raw), ("ema", EMA, ema), (raw, RAW, raw), (ema, EMA, ema)):
        file = read_tensors(path, wanted)
        assert same(file.tensors, state)
        assert (file.weights, file.note) == (key, None)


@pytest.mark.parametrize("prefix", ["ema_model.", "model_ema.module.", "ema."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_averaged_weights_among_the_names_of_one_state_dict(prefix: str, wrapped: bool, tmp_path: Path) -> None:
    path, state = tmp_path / "a.ckpt", {**prefixed(RAW, "model."), **prefixed(EMA, prefix)}
    torch.save({"state_dict": state} if wrapped else state, path)
    file = read_tensors(path)
    assert same(file.tensors, RAW)
    assert file.note is not None
    assert same(read_tensors(path, "ema").tensors, EMA)


def test_a_part_of_the_network_that_is_called_as_an_average_is_left_alone(tmp_path: Path) -> None:
    state = {**RAW, "ema.weight": torch.ones(7)}
    torch.save(state, tmp_path / "a.pt")
    assert same(read_tensors(tmp_path / "a.pt").tensors, state)


def test_which_weights_cannot_be_told(tmp_path: Path) -> None:
    torch.save({"student": RAW, "teacher": EMA}, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"several sets of weights: 'student', 'teacher'.*--weights KEY"):
        read_tensors(tmp_path / "a.pt")
    assert same(read_tensors(tmp_path / "a.pt", "teacher").tensors, EMA)
    with pytest.raises(UsageError, match=r"no averaged weights \(it holds 'student', 'teacher'\)"):
        read_tensors(tmp_path / "a.pt", "ema")
    with pytest.raises(UsageError, match="no weights under 'techer'"):
        read_tensors(tmp_path / "a.pt", "techer")


def test_what_a_file_without_weights_holds_is_said(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="it has the keys 'epoch', 'best'"):
        read_tensors(tmp_path / "a.pt")


OTHERS = [
    ("model", "mean_teacher"),
    ("state_dict", "best_state_dict"),
    ("state_dict", "model"),
    ("model", "previous"),
    ("net", "nested.best"),
]


@pytest.mark.parametrize(("key", "other"), OTHERS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_other_weights_of_the_same_network_are_told_of(key: str, other: str, prefix: str, tmp_path: Path) -> None:
    for values, told in ((EMA, True), (RAW, False), ({"a.weight": torch.ones(2, 3)}, False)):
        beside: Any = prefixed(values, prefix)
        for part in reversed(other.split(".")):
            beside = {part: beside}
        torch.save({**beside, key: RAW}, tmp_path / "a.pt")
        file = read_tensors(tmp_path / "a.pt")
        assert same(file.tensors, RAW)
        assert (file.note is not None and f"'{other}'" in file.note) == told, file.note
        assert read_tensors(tmp_path / "a.pt", key).note is None
        assert same(read_tensors(tmp_path / "a.pt", other).tensors, values)


@pytest.mark.parametrize(
    "keys", [("swa_state_dict", "ema_state_dict"), ("model_ema", "model_ema_2"), ("polyak", "avg")]
)
def test_which_average_is_meant_is_asked(keys: tuple[str, str], tmp_path: Path) -> None:
    """No key is nearer to "ema" for having "state_dict" in it."""
    for raw in ({}, {"state_dict": RAW}):
        torch.save({**raw, keys[0]: EMA, keys[1]: prefixed(EMA, "module.")}, tmp_path / "a.pt")
        for wanted in ("ema", *([] if raw else [None])):
            with pytest.raises(UsageError, match=f"several sets of averaged weights: '{keys[0]}', '{keys[1]}'"):
                read_tensors(tmp_path / "a.pt", wanted)
        assert same(read_tensors(tmp_path / "a.pt", keys[1]).tensors, EMA)


def test_an_average_without_names_is_told_of(tmp_path: Path) -> None:
    """As torch_ema keeps it: the parameters in their order, without statistics and counters."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 2, 3))
    shadow = [parameter.detach() + 1 for parameter in network.parameters()]
    equal = [parameter.detach().clone() for parameter in network.parameters()]
    for tensors, told in ((shadow, True), (equal, False), (shadow[:-1][::-1], False), ([torch.ones(2)], False)):
        ema = {"decay": 0.9, "num_updates": 3, "shadow_params": tensors, "collected_params": None}
        for content in ({"model": network.state_dict(), "ema": ema}, {"ema": ema, "model": network.state_dict()}):
            torch.save(content, tmp_path / "a.pt")
            file = read_tensors(tmp_path / "a.pt")
            assert same(file.tensors, dict(network.state_dict()))
            assert (file.note is not None and "'ema.shadow_params'" in file.note) == told, file.note


def test_a_counter_that_was_averaged_fits(tmp_path: Path) -> None:
    network = torch.nn.BatchNorm2d(2)
    state = {name: tensor.to(torch.float32) for name, tensor in network.state_dict().items()}
    check_fit(tmp_path, state, network.state_dict())
    with pytest.raises(InputError, match="num_batches_tracked is float"):
        check_fit(tmp_path, {**state, "num_batches_tracked": torch.ones(3)}, network.state_dict())


@pytest.mark.parametrize("new", [True, False])
def test_a_tensor_that_is_called_bytearray(new: bool, tmp_path: Path) -> None:
    state = {"bytearray.weight": RAW["a.weight"], "bytearray": RAW["a.bias"], "a.bytearray": RAW["b.weight"]}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    assert same(read_tensors(tmp_path / "a.pt").tensors, state)
