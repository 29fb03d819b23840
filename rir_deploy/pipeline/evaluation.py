"""The images that a budget of accuracy is kept on: labelled, and none that calibrate or prove."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.digests import image_digests
from rir_deploy.errors import InputError, UsageError
from rir_deploy.pipeline.images import Images
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.quantize.chosen_on import ChosenOn
from rir_deploy.recipe import Recipe


@dataclass(frozen=True)
class SearchRequest:
    """``max_drop`` in points of top-1 on ``eval_data``; None only ranks the layers.

    Raises:
        UsageError: one of the two without the other, or a budget that is no share of 100.
    """

    max_drop: float | None = None
    eval_data: str | None = None

    def __post_init__(self) -> None:
        if (self.max_drop is None) != (self.eval_data is None):
            raise UsageError(
                "--max-drop and --eval-data go together: a budget of top-1, and labelled images to keep it on"
            )
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise UsageError(f"--max-drop {self.max_drop:g} is not a number of points from 0 to under 100")


@dataclass(frozen=True)
class Evaluation:
    """``max_drop`` in points of top-1 on the images of ``dataset``; ``digests`` are theirs, in order."""

    dataset: Dataset
    max_drop: float
    digests: npt.NDArray[np.uint64]

    @property
    def chosen_on(self) -> ChosenOn:
        """What is recorded of them, since they are no proof of what was chosen on them."""
        return ChosenOn.of(self.dataset.source.fingerprint(), self.digests)

    def refuse(self, what: str, other: Dataset, indices: npt.ArrayLike | None = None) -> None:
        """Refuse to share an image with ``other``, or with those of it at ``indices``.

        Raises:
            UsageError: there are common ones; it says how many.
        """
        common = np.flatnonzero(np.isin(self.digests, image_digests(other, indices)))
        if len(common):
            source = self.dataset.source
            raise UsageError(
                f"{len(common)} of the {len(self.digests)} evaluation images of '{source.name}' are among {what} (the "
                f"first is '{source.describe(int(common[0]))}'); name labelled images that are not"
            )


def open_evaluation(
    recipe: Recipe, request: SearchRequest, images: Images, progress: Progress = silent
) -> Evaluation | None:
    """The images that a budget is kept on, if there is one.

    Args:
        images: those of calibration.

    Raises:
        InputError: they have no labels.
        UsageError: some are those of calibration, or of the recipe's test part, which is for the proof.
    """
    evaluation = read_evaluation(recipe, request, progress)
    if evaluation is not None:
        evaluation.refuse("the calibration images", images.dataset, images.indices)
        if "test" in recipe.data:
            evaluation.refuse("the recipe's test images, which are for the proof", open_dataset(None, recipe, "test"))
    return evaluation


def read_evaluation(recipe: Recipe, request: SearchRequest, progress: Progress = silent) -> Evaluation | None:
    """The same, before it is known what they must not share an image with."""
    if request.eval_data is None or request.max_drop is None:
        return None
    dataset = open_dataset(request.eval_data, recipe, "train")
    if dataset.labels is None:
        raise InputError(f"'{request.eval_data}' has no labels: a drop of top-1 is measured on labelled images")
    if len(np.unique(dataset.labels)) < 2:
        raise InputError(
            f"the images of '{request.eval_data}' are all of one class: what is lost on the others would not show; "
            "name images of all classes"
        )
    digests = image_digests(dataset, progress=lambda done, total: progress("reading evaluation images", done, total))
    return Evaluation(dataset, request.max_drop, digests)
