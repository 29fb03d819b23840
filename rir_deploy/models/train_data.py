"""Images and labels to train on, and the batches of an epoch; numpy only.

An epoch's order and augmentation depend on (seed, epoch) alone, so that a resumed training sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rir_deploy.errors import InputError
from rir_deploy.models.config import RiRConfig
from rir_deploy.models.train_options import TrainOptions

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer[Any]]
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class TrainData:
    """A data set in memory.

    Attributes:
        name: what it is called in records.
        train_images, test_images: uint8 N,H,W,C.
        train_labels, test_labels: integers N, from 0.
        normalize: uint8 N,H,W,C to float32 N,C,H,W, as deployment will do it.
        recipe: the preprocessing as plain JSON data, recorded in the checkpoint.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    normalize: Callable[[Images], npt.NDArray[np.float32]]
    recipe: Mapping[str, Any] | None = None


def check_data(data: TrainData, config: RiRConfig) -> None:
    """Raise InputError unless ``data`` is what the network of ``config`` takes."""
    for part, images, labels in (
        ("training", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:3] != config.image_size:
            raise InputError(
                f"the {part} images of {data.name} are {images.dtype} {images.shape}, not uint8 N,H,W,C of "
                f"{config.image_size} pixels; resize them or change image_size"
            )
        if len(images) < 2 or labels.shape != (len(images),):
            raise InputError(f"the {part} data of {data.name} needs two images or more and one label for each")
        _check_labels(part, data.name, labels, config.num_classes)
    shape = data.normalize(data.train_images[:1]).shape[1:]
    if shape != (config.in_channels, *config.image_size):
        raise InputError(
            f"normalised images of {data.name} are {shape}, but the network takes "
            f"{(config.in_channels, *config.image_size)}; change in_channels or the preprocessing"
        )


def fingerprint(data: TrainData) -> str:
    """Hex sha256 over everything that training reads of ``data``."""
    digest = hashlib.sha256(json.dumps([data.name, data.recipe], sort_keys=True, default=repr).encode())
    # What normalize is cannot be hashed; what it does to some images can.
    probe = np.ascontiguousarray(data.normalize(data.train_images[:4]))
    arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels, probe)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def count_steps(data: TrainData, options: TrainOptions) -> int:
    """Batches in an epoch."""
    return -(-len(data.train_images) // options.batch_size)


def shuffled_batches(data: TrainData, options: TrainOptions, epoch: int) -> Iterator[Batch]:
    """The batches of ``epoch``: all images once, shuffled, augmented, normalised.

    Batches are of equal size to within one image: a small last one would upset batch norm.
    """
    random = np.random.default_rng((options.seed, epoch))
    order = random.permutation(len(data.train_images))
    for chosen in np.array_split(order, count_steps(data, options)):
        images = augment(data.train_images[chosen], options.crop_padding, options.flip, random)
        yield np.ascontiguousarray(data.normalize(images)), data.train_labels[chosen].astype(np.int64)


def ordered_batches(data: TrainData, size: int) -> Iterator[Batch]:
    """The test images in order, normalised."""
    for start in range(0, len(data.test_images), size):
        images = data.normalize(data.test_images[start : start + size])
        yield np.ascontiguousarray(images), data.test_labels[start : start + size].astype(np.int64)


def augment(images: Images, padding: int, flip: bool, random: np.random.Generator) -> Images:
    """Random crops out of images padded with pixel value 0, and random horizontal flips: N,H,W,C to the same.

    The padding is of pixels, before normalisation, as torchvision's RandomCrop does it.
    """
    count, height, width, _ = images.shape
    if padding:
        around = (padding, padding)
        padded = np.pad(images, ((0, 0), around, around, (0, 0)))
        top, left = random.integers(0, 2 * padding + 1, size=(2, count, 1))
        rows, columns = top + np.arange(height), left + np.arange(width)
        images = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if flip:
        mirrored = random.integers(0, 2, size=(count, 1, 1, 1), dtype=np.uint8).astype(bool)
        images = np.where(mirrored, images[:, :, ::-1], images)
    return images


def _check_labels(part: str, name: str, labels: Labels, classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"the {part} labels of {name} are {labels.dtype}; give whole numbers")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise InputError(
            f"{part} image {first} of {name} has label {labels[first]}, outside 0 to {classes - 1}; "
            "correct it or raise num_classes"
        )
