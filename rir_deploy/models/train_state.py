"""What a training needs to continue after a kill: one safetensors file, replaced after every epoch.

It holds the network's state, the optimizer's momentum, and the record of what is being trained on what; nothing
is pickled. Random numbers need no state: they follow from the seed and the epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rir_deploy.artifacts import atomic_file
from rir_deploy.errors import InputError, UsageError
from rir_deploy.models.checks import check_keys
from rir_deploy.models.fit import check_fit
from rir_deploy.models.tensor_files import read_tensors
from rir_deploy.strict_data import parse_json

METADATA_KEY = "rir_deploy.training"
_MODEL, _MOMENTUM = "model.", "momentum."


@dataclass(frozen=True)
class EpochRecord:
    """Means over one epoch of training: loss, and accuracy on the augmented images as they were seen."""

    loss: float
    accuracy: float


# What makes two trainings the same: "config", "options" and "data" (a fingerprint), as plain JSON.
Identity = dict[str, Any]


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.SGD, identity: Identity, history: list[EpochRecord]
) -> None:
    """Replace the state at ``path``, atomically."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"{_MOMENTUM}{name}": tensor for name, tensor in _momenta(model, optimizer).items()}
    record = {"identity": identity, "history": [[epoch.loss, epoch.accuracy] for epoch in history]}
    with atomic_file(path, force=True) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={METADATA_KEY: json.dumps(record, sort_keys=True)},
        )


def restore_state(path: Path, model: nn.Module, optimizer: torch.optim.SGD, identity: Identity) -> list[EpochRecord]:
    """Put the state at ``path``, if there is one, into ``model`` and ``optimizer``; the epochs done so far.

    Raises:
        UsageError: it belongs to another training.
        InputError: it is damaged.
    """
    if not path.exists():
        return []
    file = read_tensors(path)
    history = _check_record(path, file.metadata.get(METADATA_KEY, ""), identity)
    expected = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer.defaults["momentum"]:
        expected |= {f"{_MOMENTUM}{name}": tensor for name, tensor in model.named_parameters()}
    check_fit(path, file.tensors, expected)
    model.load_state_dict({name: file.tensors[f"{_MODEL}{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        if f"{_MOMENTUM}{name}" in expected:
            momentum = torch.empty_like(parameter, requires_grad=False)
            momentum.copy_(file.tensors[f"{_MOMENTUM}{name}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return history


def _momenta(model: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    found = {name: optimizer.state[parameter].get("momentum_buffer") for name, parameter in model.named_parameters()}
    return {name: momentum for name, momentum in found.items() if momentum is not None}


def _check_record(path: Path, text: str, identity: Identity) -> list[EpochRecord]:
    try:
        record = check_keys("the record", parse_json(text), ("identity", "history"), ("identity", "history"))
        history = [EpochRecord(float(loss), float(accuracy)) for loss, accuracy in record["history"]]
        before = check_keys("the identity", record["identity"], identity, required=identity)
    except (ValueError, TypeError, RecursionError, InputError) as error:
        raise InputError(f"the training state '{path}' is damaged ({error}); remove it to start over") from error
    differing = [_describe(name, before[name], now) for name, now in identity.items() if before[name] != now]
    if differing:
        raise UsageError(
            f"'{path}' belongs to a training with other {' and '.join(differing)}; train into another folder, "
            "or remove it to start over"
        )
    return history


def _describe(name: str, before: object, now: object) -> str:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return name
    return f"{name} ({', '.join(key for key in now if before.get(key) != now[key])})"
