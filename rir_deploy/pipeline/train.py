"""train: a recipe and data in, a checkpoint out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rir_deploy.claim import claimed_folder
from rir_deploy.data.dataset import Dataset
from rir_deploy.errors import BackendError, InputError
from rir_deploy.models import RiRConfig, preset
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep, TrainResult


@dataclass(frozen=True)
class TrainRequest:
    """``folder`` takes the state after every epoch and the finished ``model.safetensors``."""

    recipe: str
    folder: Path
    data: str | None = None
    test_data: str | None = None
    epochs: int | None = None
    device: str | None = None


def model_config(recipe: Recipe) -> RiRConfig:
    """The network of a recipe's ``[model]`` table: a preset and what it changes, or a whole configuration.

    Raises:
        InputError, UsageError: the table is malformed, the preset unknown.
    """
    channels, height, width = recipe.preprocessing.input_shape
    table: dict[str, Any] = dict(recipe.model)
    sizes: dict[str, Any] = {
        "num_classes": len(recipe.classes),
        "in_channels": channels,
        "image_size": [height, width],
    }
    name = table.pop("preset", None)
    if name is None:
        return RiRConfig.from_dict({**sizes, **table})
    if not isinstance(name, str):
        raise InputError(f"the preset in the [model] table of recipe '{recipe.name}' must be a name, not {name!r}")
    return RiRConfig.from_dict({**preset(name).to_dict(), **sizes, **table})


def train_recipe(request: TrainRequest, on_step: OnStep | None = None, progress: Progress = silent) -> TrainResult:
    """Train as the recipe says; the same call continues a training that was interrupted.

    Raises:
        BackendError: torch is not installed, or the device is not there.
        UsageError, InputError: as the recipe, the data and `rir_deploy.models.train.train` do.
    """
    try:
        from rir_deploy.models.train import TrainData, TrainOptions, train
    except ImportError as error:
        raise BackendError(f'{error.name} is not installed; run: python -m pip install "rir-deploy[host]"') from error
    recipe = load_recipe(request.recipe)
    options = TrainOptions.from_dict(recipe.train)
    if request.epochs is not None:
        options = replace(options, epochs=request.epochs)
    if request.device is not None:
        options = replace(options, device=request.device)
    config = model_config(recipe)
    parts = {
        part: _load(open_dataset(spec, recipe, part), progress)
        for part, spec in (("train", request.data), ("test", request.test_data))
    }
    (train_images, train_labels), (test_images, test_labels) = parts["train"], parts["test"]
    data = TrainData(
        recipe.name,
        train_images,
        train_labels,
        test_images,
        test_labels,
        recipe.preprocessing.normalize,
        recipe.to_dict(),
    )
    with claimed_folder(request.folder):
        return train(config, data, options, folder=request.folder, on_step=on_step)


def _load(dataset: Dataset, progress: Progress) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Any]:
    """A whole part in memory: images are read many times over in a training."""
    if dataset.labels is None:
        raise InputError(f"'{dataset.source.name}' has no labels to train on; sort its images into class folders")
    images = np.empty((len(dataset), *dataset.preprocessing.size, dataset.preprocessing.channels), dtype=np.uint8)
    label = f"reading {dataset.source.name}"
    for batch in dataset.batches(500, progress=lambda done, total: progress(label, done, total)):
        images[batch.indices] = batch.images
    return images, dataset.labels
