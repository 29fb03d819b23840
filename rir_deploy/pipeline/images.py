"""The calibration images: chosen by seed, and read as the model takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.sampling import choose, shuffled
from rir_deploy.errors import InputError
from rir_deploy.pipeline.progress import Progress, tracked
from rir_deploy.quantize import Sources
from rir_deploy.recipe import CalibrationOptions

BATCH = 32


@dataclass(frozen=True)
class Images:
    """The chosen images of a data set, and how to read them.

    Attributes:
        indices: of the chosen ones in the data set, ascending.
        raw: whether the model takes uint8 pixels.
        options: that they were chosen by.
        sources: what is made with them is bound to.
        fixed: the only batch that the model takes; None where it takes any.
    """

    dataset: Dataset
    indices: NDArray[np.int64]
    raw: bool
    options: CalibrationOptions
    sources: Sources
    fixed: int | None = None

    def batches(self, label: str, progress: Progress) -> Iterator[NDArray[np.generic]]:
        """Batches as the model takes them; a fixed batch that the images do not fill begins with them again."""
        size = self.fixed or BATCH
        count = -(-len(self.indices) // size)
        indices = self.indices if self.fixed is None else np.resize(self.indices, count * size)
        for batch in tracked(self.dataset.batches(size, indices), label, count, progress):
            yield batch.images if self.raw else batch.tensor(self.dataset.preprocessing)

    def split(self, share: float) -> tuple[Images, Images]:
        """Two parts without a common image, the second of ``share`` of them."""
        order = shuffled(len(self.indices), self.options.seed)
        cut = len(order) - round(share * len(order))
        first, second = (replace(self, indices=np.sort(self.indices[part])) for part in (order[:cut], order[cut:]))
        return first, second

    def spread(self, count: int) -> Images:
        """So many of them, from first to last: folders list one class after the other."""
        places = np.linspace(0, len(self.indices) - 1, min(count, len(self.indices)), dtype=np.int64)
        return replace(self, indices=self.indices[places])


def choose_images(dataset: Dataset, options: CalibrationOptions) -> NDArray[np.int64]:
    """Which images are calibrated on: by seed, balanced over the classes.

    Raises:
        InputError: there are too few, or all are of one class.
    """
    indices = choose(dataset.labels, len(dataset), options.samples, options.seed)
    if dataset.labels is not None and len(np.unique(dataset.labels[indices])) < 2:
        raise InputError(
            f"the calibration images of '{dataset.source.name}' are all of one class: ranges found on them hold for no "
            "other; name images of all classes"
        )
    return indices
