"""Which images a data set holds, whatever file they come from: a digest of each."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from rir_deploy.data.dataset import Dataset, Progress

_BATCH = 256


def image_digests(
    dataset: Dataset, indices: npt.ArrayLike | None = None, progress: Progress | None = None
) -> npt.NDArray[np.uint64]:
    """(n,) of all images in order, or of those at ``indices``: the first 8 bytes of a sha256.

    Over shape and pixels of the image as the network gets it, uint8 and brought to size, so that a zip and an .npz of
    the same images agree. Equal digests are equal images: even of 10,000 and a million others, two different ones agree
    with a chance of 5e-10. An image that was compressed anew is another one.

    Raises:
        InputError: an image that is malformed or does not fit.
    """
    batches = dataset.batches(_BATCH, indices, progress)
    found = [np.array([_digest(image) for image in batch.images], dtype=np.uint64) for batch in batches]
    return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)


def _digest(image: npt.NDArray[np.uint8]) -> int:
    data = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
