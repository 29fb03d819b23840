"""Checkpoints of RiR networks: our own format, and the known foreign layouts.

Our own is a safetensors file whose metadata holds one JSON record (one entry, so that equal content gives
equal bytes): format version, config, recorded accuracy, preprocessing recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rir_deploy.artifacts import atomic_file
from rir_deploy.errors import InputError
from rir_deploy.models import layout_cifar100, layout_pytorchcv
from rir_deploy.models.checks import check_keys
from rir_deploy.models.config import RiRConfig
from rir_deploy.models.fit import check_fit, is_counter
from rir_deploy.models.layouts import ForeignModel, Layout
from rir_deploy.models.rir import RiR
from rir_deploy.models.tensor_files import TensorFile, read_tensors
from rir_deploy.models.weight_sets import levels
from rir_deploy.strict_data import parse_json

METADATA_KEY = "rir_deploy.checkpoint"
FORMAT_VERSION = 1
_HEADER = ("version", "config", "accuracy", "recipe")
# What the foreign layouts were made for; their state dicts do not say.
FOREIGN_IMAGE_SIZE = (32, 32)
_FOREIGN = (layout_pytorchcv, layout_cifar100)


@dataclass(frozen=True)
class CheckpointRecord:
    """What is known of a trained model, as plain JSON data.

    ``accuracy`` has at least "top1" (a fraction), "dataset" and "n" (images); ``recipe`` is the
    preprocessing.
    """

    accuracy: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint's network in eval mode on the CPU, with what the file says of it.

    ``weights`` and ``note`` are those of `TensorFile`.
    """

    model: RiR
    config: RiRConfig
    layout: Layout
    accuracy: dict[str, Any] | None
    recipe: dict[str, Any] | None
    weights: str | None = None
    note: str | None = None


def save_checkpoint(path: Path, model: RiR, *, record: CheckpointRecord | None = None, force: bool = False) -> None:
    """Write ``model`` and its record to ``path`` (.safetensors), atomically.

    Raises:
        UsageError: ``path`` exists and ``force`` is not given, or cannot be written.
    """
    record = record or CheckpointRecord()
    header = {
        "version": FORMAT_VERSION,
        "config": model.config.to_dict(),
        "accuracy": record.accuracy,
        "recipe": record.recipe,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(path, force=force) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)})


def load_checkpoint(path: Path, image_size: tuple[int, int] | None = None, weights: str | None = None) -> LoadedModel:
    """The network in ``path``: our own format or a foreign layout, told apart by content.

    Args:
        path: a .safetensors file, or a PyTorch file of plain tensors.
        image_size: (height, width) in pixels; by default the recorded one, 32x32 for a foreign layout.
        weights: which of several sets of weights is meant: "model", "ema" (averaged) or a key.

    Raises:
        UsageError: no such file, an unknown suffix, or no such weights.
        InputError: the content is malformed, fits no known layout, or is not finite.
    """
    file = read_tensors(path, weights)
    if METADATA_KEY in file.metadata:
        return _load_own(path, file, image_size)
    for names in levels({name: name for name in file.tensors}):
        tensors = {name: file.tensors[whole] for name, whole in names.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for layout in _FOREIGN:
            if layout.matches(shapes):
                foreign = layout.read(shapes, image_size or FOREIGN_IMAGE_SIZE)
                return _load_foreign(path, replace(file, tensors=tensors), foreign)
    raise InputError(
        f"'{path}' is neither an rir-deploy checkpoint nor a pytorchcv or pytorch-cifar100 RiR state dict "
        f"(its first name is '{next(iter(file.tensors), '')}'); give the network itself as package.module:factory"
    )


def _load_own(path: Path, file: TensorFile, image_size: tuple[int, int] | None) -> LoadedModel:
    header = _parse_header(path, file.metadata[METADATA_KEY])
    config = RiRConfig.from_dict(header["config"])
    if image_size is not None:
        config = replace(config, image_size=image_size)
    check_fit(path, file.tensors, expected_state(config))
    model = build_with(config, file.tensors)
    return LoadedModel(model, config, "rir-deploy", header["accuracy"], header["recipe"])


def _parse_header(path: Path, text: str) -> Mapping[str, Any]:
    try:
        header = check_keys("the record", parse_json(text), _HEADER, required=_HEADER)
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"the metadata of '{path}' is malformed ({error}); save it again") from error
    if header["version"] != FORMAT_VERSION:
        raise InputError(
            f"'{path}' has checkpoint format {header['version']!r} and this version reads {FORMAT_VERSION}; "
            "use the version of rir-deploy that wrote it"
        )
    for name in ("accuracy", "recipe"):
        if header[name] is not None and not isinstance(header[name], dict):
            raise InputError(f"the {name} in the metadata of '{path}' is no table; save the checkpoint again")
    return header


def _load_foreign(path: Path, file: TensorFile, foreign: ForeignModel) -> LoadedModel:
    expected = expected_state(foreign.config)
    names = {name: foreign.foreign_name(name) for name in expected}
    check_fit(path, file.tensors, {names[name]: tensor for name, tensor in expected.items()})
    tensors = {name: file.tensors[theirs] for name, theirs in names.items() if theirs in file.tensors}
    network = build_with(foreign.config, tensors)
    return LoadedModel(network, foreign.config, foreign.layout, None, None, file.weights, file.note)


def expected_state(config: RiRConfig) -> dict[str, Tensor]:
    """The network's state on the meta device: names, shapes and types without the memory."""
    with torch.device("meta"):
        return RiR(config).state_dict()


def build_with(config: RiRConfig, tensors: Mapping[str, Tensor]) -> RiR:
    """The network with ``tensors`` (which fit it) as its state, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        model = RiR(config)
    counters = {name: tensor for name, tensor in model.state_dict().items() if is_counter(name)}
    model.load_state_dict({**counters, **tensors})
    return model.eval()
