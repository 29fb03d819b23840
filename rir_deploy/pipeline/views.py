"""How the two sides of a comparison see the images: each through the preprocessing that is recorded in it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.errors import InputError
from rir_deploy.pipeline.progress import Progress
from rir_deploy.pipeline.sides import Runner, Side
from rir_deploy.pipeline.sources import Batches, choose_recipe, image_batches, open_dataset
from rir_deploy.recipe import Recipe


@dataclass(frozen=True)
class Views:
    """One source of images through the eyes of both sides.

    ``recipe`` is the reference's, ``differences`` are the fields in which the candidate's preprocessing is another:
    "mean [0.49] against [0.24]".
    """

    recipe: Recipe
    reference: Dataset
    candidate: Dataset
    differences: tuple[str, ...]

    def runners(self, reference: Side, candidate: Side, batch: int) -> tuple[Runner, Runner]:
        """Both sides, to be fed with batches of `batches`."""
        left = reference.make_runner(self.reference.preprocessing)
        right = candidate.make_runner(self.candidate.preprocessing)
        if self.candidate.preprocessing.resize == self.reference.preprocessing.resize:
            return left, right
        own = image_batches(self.candidate, batch)

        def run(_images: NDArray[np.uint8]) -> NDArray[np.floating]:
            return right(next(own)[0])  # the same images, brought to size in the candidate's way

        return left, run

    def batches(self, size: int, label: str, progress: Progress) -> Batches:
        return image_batches(self.reference, size, label=label, progress=progress)


def open_views(data: str | None, recipe: str | None, reference: Side, candidate: Side) -> Views:
    """The data (by default the recipe's test part) as both sides see it.

    ``recipe`` stands for the reference's where that records none. Where only one side records a recipe, it holds for
    both.

    Raises:
        UsageError: no recipe or data is known, or ``recipe`` is not the one that the reference records.
        InputError: the two sides take images of different shapes; the data cannot be used.
    """
    known = reference.recipe if recipe is not None or reference.recipe is not None else candidate.recipe
    chosen = choose_recipe(recipe, known)
    own = chosen if candidate.recipe is None else Recipe.from_dict(candidate.recipe)
    left, right = chosen.preprocessing, own.preprocessing
    if left.input_shape != right.input_shape:
        raise InputError(
            f"the reference takes images of {left.input_shape} (C, H, W) and the candidate of {right.input_shape}: "
            "these are not two versions of one model"
        )
    dataset = open_dataset(data, chosen, "test")
    other = dataset if left == right else Dataset(dataset.source, right, classes=chosen.classes)
    return Views(chosen, dataset, other, _differences(left, right))


def _differences(left: Preprocessing, right: Preprocessing) -> tuple[str, ...]:
    pairs = {field.name: (getattr(left, field.name), getattr(right, field.name)) for field in fields(Preprocessing)}
    return tuple(f"{name} {_text(a)} against {_text(b)}" for name, (a, b) in pairs.items() if a != b)


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Places of ``count`` images, spread over the whole set: folders list one class after the other."""
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))
