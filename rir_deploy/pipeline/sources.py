"""Recipes and data for the stages: which preprocessing holds, and the images it is applied to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.sources import open_source
from rir_deploy.errors import UsageError
from rir_deploy.notices import notice
from rir_deploy.pipeline.progress import Progress, silent, tracked
from rir_deploy.recipe import Recipe, load_recipe

Batches = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64] | None]]


def choose_recipe(name: str | None, *recorded: dict[str, Any] | None) -> Recipe:
    """The recipe asked for, or else the one that an artifact was made with.

    Raises:
        UsageError: none is known, or the one asked for preprocesses otherwise than the recorded one.
    """
    known = [Recipe.from_dict(data) for data in recorded if data is not None]
    if name is None:
        if not known:
            raise UsageError("no recipe is recorded in the model; name one with --recipe (cifar10, a .toml file, ...)")
        return known[0]
    recipe = load_recipe(name)
    for other in known:
        if other.preprocessing != recipe.preprocessing:
            raise UsageError(
                f"--recipe {name} preprocesses images otherwise than the recipe '{other.name}' recorded in the model; "
                "leave --recipe out, or export the model again with it"
            )
    return recipe


def open_dataset(spec: str | None, recipe: Recipe, part: str) -> Dataset:
    """The data asked for, or else the recipe's own (``part`` is "train" or "test"). What is not read is a `Notice`.

    Raises:
        UsageError: neither is there.
    """
    chosen = spec or recipe.data.get(part)
    if chosen is None:
        raise UsageError(f"the recipe '{recipe.name}' brings no data of its own; name some with --data")
    source = open_source(chosen)
    if source.note is not None:
        notice(source.note)
    return Dataset(source, recipe.preprocessing, classes=recipe.classes)


def image_batches(
    dataset: Dataset,
    size: int,
    indices: NDArray[np.int64] | None = None,
    label: str = "images",
    progress: Progress = silent,
) -> Batches:
    """(uint8 images [n, H, W, C], labels or None), with progress by image."""
    total = len(dataset) if indices is None else len(indices)
    batches = tracked(dataset.batches(size, indices), label, -(-total // size), progress)
    return ((batch.images, batch.labels) for batch in batches)


def noise_batches(recipe: Recipe, count: int, seed: int = 0) -> Batches:
    """One batch of random pixels in the recipe's shape, for where no images are at hand; no labels."""
    channels, height, width = recipe.preprocessing.input_shape
    random = np.random.default_rng(seed)
    yield random.integers(0, 256, size=(count, height, width, channels), dtype=np.uint8), None
