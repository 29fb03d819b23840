"""Tensors from files that are not trusted: read without running code, then checked before they are used."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.suffixes import TORCH_SUFFIXES

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
_LISTED = 8


@dataclass(frozen=True)
class TensorFile:
    """Named tensors on the CPU, and the file's own string metadata (empty for a PyTorch file)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors file, or of a PyTorch file that holds plain tensors only.

    A PyTorch file may hold the state dict itself or under "state_dict", "model_state_dict", "model" or "net".
    Every tensor is dense and backed by data in the file, every float finite also as float32.

    Raises:
        UsageError: no such file, or its suffix is not known.
        InputError: the file is corrupt, holds anything but plain tensors, or a value that is not finite.
    """
    if not path.is_file():
        raise UsageError(f"there is no checkpoint file '{path}'; check the path")
    if path.suffix == ".safetensors":
        file = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        file = TensorFile(_without_prefix(_state_dict(path, _read_torch(path))), {})
    else:
        known = ", ".join((".safetensors", *TORCH_SUFFIXES))
        raise UsageError(f"'{path}' has an unknown suffix for a checkpoint; use one of {known}")
    _check_sizes(path, file.tensors)
    for name, tensor in file.tensors.items():
        _check_values(path, name, tensor)
    return file


def check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise one InputError that lists what is missing, unexpected or of the wrong shape or kind.

    ``num_batches_tracked`` may be missing: PyTorch before 0.4.1 did not write it and inference does not
    read it.
    """
    problems = [f"missing {name}" for name in expected if name not in found and not is_counter(name)]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {_describe(found[name])} where {_describe(tensor)} is expected"
        for name, tensor in expected.items()
        if name in found and _describe(found[name]) != _describe(tensor)
    ]
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        listed = "; ".join(problems[:_LISTED])
        raise InputError(f"the tensors of '{path}' do not fit the model: {listed}{more}")


def _describe(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {list(tensor.shape)}"


def is_counter(name: str) -> bool:
    """Whether ``name`` is the step counter of a batch norm, which inference does not read."""
    return name.endswith("num_batches_tracked")


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return TensorFile({name: file.get_tensor(name) for name in names}, file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable safetensors file ({error}); copy it again") from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it may not read: it says so where it does not
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken pickle can raise almost anything
        # Around the reason stands advice, to load it unsafely first of all.
        told = [part.strip() for part in str(error).split("\n\n") if part.strip() and "documentation of" not in part]
        reason = told[-1].splitlines()[0] if told else type(error).__name__
        raise InputError(
            f"'{path}' is corrupt or holds more than plain tensors ({reason[:160]}); where you trust it, "
            "load it and save model.state_dict() alone"
        ) from error


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and not _all_tensors(content):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise InputError(
            f"'{path}' holds no state dict (names to tensors), neither bare nor under "
            f"{', '.join(_WRAPPERS)}; save model.state_dict()"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in content.values())


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A few bytes can describe a tensor of any size (stride 0): refuse more than the file holds."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{name} in '{path}' is not a plain dense tensor; save it as one")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > path.stat().st_size:
        raise InputError(f"the tensors of '{path}' claim {claimed} bytes, more than it has; save it again")


def _check_values(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        return
    # float32 is what they are used as: a float64 beyond its range is as bad as an infinity.
    values = tensor.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} in '{path}' holds NaN or infinite values; use an earlier checkpoint")
    if name.endswith("running_var") and bool((values < 0).any()):
        raise InputError(f"{name} in '{path}' holds negative variances; use an undamaged copy")
