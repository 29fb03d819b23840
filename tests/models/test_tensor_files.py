"""PyTorch files are hostile until shown otherwise."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.fit import check_fit
from rir_deploy.models.tensor_files import read_tensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def saved(folder: Path, content: Any, name: str = "a.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


class Trap:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_where_a_state_dict_is_found(key: str | None, prefix: str, tmp_path: Path) -> None:
    state = OrderedDict((prefix + name, tensor) for name, tensor in STATE.items())
    found = read_tensors(saved(tmp_path, state if key is None else {"epoch": 3, key: state})).tensors
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pth.tar", "a.ckpt", "a.bin"])
def test_suffixes(name: str, tmp_path: Path) -> None:
    assert set(read_tensors(saved(tmp_path, STATE, name)).tensors) == set(STATE)


def test_the_old_format_of_pytorch(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert set(read_tensors(tmp_path / "a.pt").tensors) == set(STATE)


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown suffix"):
        read_tensors(saved(tmp_path, STATE, "a.onnx"))


@pytest.mark.parametrize("wrapped", [True, False])
def test_code_in_a_pickle_does_not_run(wrapped: bool, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "ran")
    path = saved(tmp_path, {**STATE, "trap": trap} if wrapped else trap)
    with pytest.raises(InputError, match="more than plain tensors"):
        read_tensors(path)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(InputError, match="corrupt or holds more"):
        read_tensors(tmp_path / "b.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"save model.state_dict\(\)") as caught:
        read_tensors(saved(tmp_path, torch.nn.Linear(2, 2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"not a pickle", b"\x80\x02}q\x00."])
def test_corrupt_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError):
        read_tensors(tmp_path / "a.pt")


def test_a_truncated_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue()[:-40])
    with pytest.raises(InputError, match="corrupt"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [{}, [], torch.ones(2), {"state_dict": {}}, {"a": 3}, {"net": {"a": 3}}, 7])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no state dict"):
        read_tensors(saved(tmp_path, content))


def test_a_few_bytes_that_claim_terabytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="claim 4000000000000 bytes"):
        read_tensors(saved(tmp_path, {"a": torch.zeros(1).expand(10**6, 10**6)}))


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_that_are_not_plain(tensor: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a in .* is not a plain dense tensor"):
        read_tensors(saved(tmp_path, {"a": tensor}))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300])
def test_not_finite_as_float32(suffix: str, value: float, tmp_path: Path) -> None:
    state = {"fine": torch.ones(3), "bad.weight": torch.tensor([1.0, value], dtype=torch.float64)}
    (torch.save if suffix == "pt" else save_file)(state, tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=r"bad.weight in .* NaN or infinite"):
        read_tensors(tmp_path / f"a.{suffix}")


def test_what_does_not_fit_is_listed_up_to_eight() -> None:
    expected = {"same": torch.ones(2), **{f"gone{i}": torch.ones(1) for i in range(6)}, "shape": torch.ones(2, 3)}
    found = {"same": torch.ones(2), **{f"new{i}": torch.ones(1) for i in range(4)}, "shape": torch.ones(3, 2)}
    with pytest.raises(InputError) as caught:
        check_fit(Path("x.pt"), found, expected)
    message = str(caught.value)
    assert message.endswith("and 3 more")
    assert [f"missing gone{i}" in message for i in range(6)] == [True] * 6
    assert [f"unexpected new{i}" in message for i in range(4)] == [True, True, False, False]
    found["shape"] = expected["shape"] * 2
    check_fit(
        Path("x.pt"),
        {name: found[name] for name in ("same", "shape")},
        {"same": found["same"], "shape": found["shape"]},
    )


def test_a_missing_step_counter_is_no_fault() -> None:
    check_fit(Path("x.pt"), {}, {"bn.num_batches_tracked": torch.tensor(0)})
    with pytest.raises(InputError, match=r"missing bn\.running_var"):
        check_fit(Path("x.pt"), {}, {"bn.running_var": torch.ones(1)})
