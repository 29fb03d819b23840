"""Any number of images through a model that takes certain batches only: cut, padded, and the padding cut off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError

Outputs = Mapping[str, NDArray[Any]]
Run = Callable[[NDArray[Any]], Outputs]


def in_batches(run: Run, low: int, high: int) -> Run:
    """``run`` for batches [N, ...] of any size, where it takes ``low`` to ``high``.

    A batch that is too large is cut; one that is too small is filled with its last image. Outputs are put together
    again along their first axis; one that has not a row an image is left out. A model of single images may give
    outputs without the axis of the batch.

    Raises (the function returned):
        InputError: no output has one row an image, so that no padding can be cut off.
    """

    def fitted(batch: NDArray[Any]) -> Outputs:
        if low <= len(batch) <= high:
            return run(batch)
        parts = [_padded(run, batch[start : start + high], low, high) for start in range(0, len(batch), high)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return fitted


def as_rows(array: NDArray[Any], images: int) -> NDArray[Any]:
    """An output with its axis of the batch, which a model of one image may leave out."""
    return array[np.newaxis] if images == 1 and (array.ndim == 0 or len(array) != 1) else array


def _padded(run: Run, batch: NDArray[Any], low: int, high: int) -> Outputs:
    images = len(batch)
    filled = batch if images >= low else np.concatenate([batch, np.repeat(batch[-1:], low - images, axis=0)])
    outputs = {name: as_rows(array, len(filled)) if high == 1 else array for name, array in run(filled).items()}
    rows = {name: array[:images] for name, array in outputs.items() if array.ndim and len(array) == len(filled)}
    if not rows:
        name, array = next(iter(outputs.items()))
        raise InputError(
            f"the output '{name}' has the shape {array.shape} for a batch of {len(filled)}, not one row an image: "
            "the model takes no other number of images"
        )
    return rows
