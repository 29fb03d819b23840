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
    again along their first axis.

    Raises (the function returned):
        InputError: an output has not one row an image, so that no padding can be cut off.
    """

    def fitted(batch: NDArray[Any]) -> Outputs:
        if low <= len(batch) <= high:
            return run(batch)
        parts = [_padded(run, batch[start : start + high], low) for start in range(0, len(batch), high)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return fitted


def _padded(run: Run, batch: NDArray[Any], low: int) -> Outputs:
    images = len(batch)
    filled = batch if images >= low else np.concatenate([batch, np.repeat(batch[-1:], low - images, axis=0)])
    outputs = run(filled)
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != len(filled):
            raise InputError(
                f"the output '{name}' has the shape {array.shape} for a batch of {len(filled)}, not one row an image: "
                "the model takes no other number of images"
            )
    return {name: array[:images] for name, array in outputs.items()}
