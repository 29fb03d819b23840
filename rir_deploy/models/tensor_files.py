"""Tensors from files that are not trusted: read without running code, then checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.left_aside import left_aside
from rir_deploy.models.same_tensors import is_plain, view_of
from rir_deploy.models.suffixes import TORCH_SUFFIXES
from rir_deploy.models.torch_files import read_torch
from rir_deploy.models.weight_sets import choose_set, clean_names, no_weights, weight_sets

# Our own files have no prefixes: a training's state holds more than one network's names.
_OWN = "rir_deploy."


@dataclass(frozen=True)
class TensorFile:
    """Named tensors on the CPU, and the file's own string metadata (empty for a PyTorch file).

    ``weights`` is the key that they lie under where the file holds several sets of weights, ``note`` what is to be said
    of others that were left aside.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    weights: str | None = None
    note: str | None = None


def read_tensors(path: Path, weights: str | None = None, *, masks: bool = False) -> TensorFile:
    """The tensors of a safetensors file, or of a PyTorch file that holds plain tensors only.

    A PyTorch file may hold the state dict itself or under a key; prefixes that all names share are taken off. Every
    tensor is dense and backed by data in the file, every float finite also as float32. Tensors that share their data
    (tied weights) are there under each of their names.

    Args:
        weights: which of several sets of weights is meant: "model", "ema" (averaged) or a key.
        masks: some tensors may be no weights, and hold infinities: the caller knows which, and calls `check_finite`.

    Raises:
        UsageError: no such file, or its suffix is not known; ``weights`` names no set, or more than one is there.
        InputError: the file is corrupt, holds anything but plain tensors, or a value that is not finite.
    """
    if not path.is_file():
        raise UsageError(f"there is no checkpoint file '{path}'; check the path")
    if path.suffix == ".safetensors":
        file = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        file = TensorFile({}, {})
    else:
        known = ", ".join((".safetensors", *TORCH_SUFFIXES))
        raise UsageError(f"'{path}' has an unknown suffix for a checkpoint; use one of {known}")
    if not any(key.startswith(_OWN) for key in file.metadata):
        content = file.tensors if path.suffix == ".safetensors" else read_torch(path)
        file = _chosen(path, content, file.metadata, weights)
    elif weights is not None:
        raise UsageError(f"'{path}' holds one set of weights, and --weights chooses among several; leave it out")
    _check_sizes(path, file.tensors)
    _check_values(path, file.tensors)
    if not masks:
        check_finite(path, file.tensors)
    return file


def _chosen(path: Path, content: object, metadata: dict[str, str], weights: str | None) -> TensorFile:
    sets = weight_sets(content)
    if not sets:
        raise no_weights(path, content)
    taken = choose_set(path, sets, weights)
    _check_sizes(path, taken.tensors)  # before they are held against others
    note = left_aside(content, sets, taken) if weights is None else None
    key = None if len(sets) == 1 else taken.key or "model"
    return TensorFile(clean_names(taken.tensors), metadata, key, None if note is None else f"'{path}' {note}")


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable safetensors file ({error}); copy it again") from error
    # safetensors.torch.save_model leaves tied weights out, and notes the name that they are under.
    tied = {name: tensors[kept] for name, kept in metadata.items() if name not in tensors and kept in tensors}
    return TensorFile({**tensors, **tied}, metadata)


def _check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A few bytes can describe a tensor of any size (stride 0): refuse more than the file holds."""
    for name, tensor in tensors.items():
        if not is_plain(tensor):
            raise InputError(f"{name} in '{path}' is not a plain dense tensor; save it as one")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _distinct(tensors).values())
    if claimed > path.stat().st_size:
        raise InputError(f"the tensors of '{path}' claim {claimed} bytes, more than it has; save it again")


def _distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the further names of tensors that are the same data: tied weights are stored, and checked, once."""
    seen: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        seen.setdefault(view_of(tensor), name)
    return {name: tensors[name] for name in seen.values()}


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in _distinct(tensors).items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise _not_finite(path, name)
    for name, tensor in tensors.items():
        if name.endswith("running_var") and tensor.is_floating_point() and bool((tensor < 0).any()):
            raise InputError(f"{name} in '{path}' holds negative variances; use an undamaged copy")


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse infinities in tensors that are weights.

    Raises:
        InputError: one holds some.
    """
    for name, tensor in _distinct(tensors).items():
        # float32 is what they are used as: a float64 beyond its range is as bad as an infinity.
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(torch.float32)).all()):
            raise _not_finite(path, name)


def _not_finite(path: Path, name: str) -> InputError:
    return InputError(f"{name} in '{path}' holds NaN or infinite values; use an earlier checkpoint")
