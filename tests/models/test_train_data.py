from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from rir_deploy.errors import InputError
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.train_data import (
    Images,
    TrainData,
    augment,
    check_data,
    fingerprint,
    ordered_batches,
    shuffled_batches,
)
from rir_deploy.models.train_options import TrainOptions

CONFIG = RiRConfig(3, 2, (6, 5), (2, 2), (Stage(2, 2, 1),))


def normalize(images: Images) -> Any:
    return images.transpose(0, 3, 1, 2).astype(np.float32) / 255


def data(**changes: Any) -> TrainData:
    random = np.random.default_rng(0)
    return dataclasses.replace(
        TrainData(
            "noise",
            random.integers(0, 256, (23, 6, 5, 2), np.uint8),
            np.arange(23) % 3,
            random.integers(0, 256, (7, 6, 5, 2), np.uint8),
            np.arange(7) % 3,
            normalize,
        ),
        **changes,
    )


def test_augment_takes_every_crop_and_only_crops() -> None:
    image = np.arange(1, 31, dtype=np.uint8).reshape(1, 6, 5, 1)
    padded = np.zeros((8, 7), np.uint8)
    padded[1:7, 1:6] = image[0, :, :, 0]
    crops = {padded[top : top + 6, left : left + 5].tobytes() for top in range(3) for left in range(3)}
    mirrored = {np.frombuffer(crop, np.uint8).reshape(6, 5)[:, ::-1].tobytes() for crop in crops}
    many = np.repeat(image, 500, 0)
    plain = augment(many, 1, False, np.random.default_rng(0))
    assert {crop.tobytes() for crop in plain} == crops
    flipped = augment(many, 1, True, np.random.default_rng(0))
    assert {crop.tobytes() for crop in flipped} == crops | mirrored


def test_augment_keeps_channels_together_and_the_input_as_it_is() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 1), np.uint8)
    both = np.concatenate([images, 255 - images], 3)
    before = both.copy()
    result = augment(both, 0, True, np.random.default_rng(1))
    assert np.array_equal(result[..., 0], 255 - result[..., 1])
    flipped = [not np.array_equal(a, b) for a, b in zip(result, both, strict=True)]
    assert 10 < sum(flipped) < 30
    assert np.array_equal(both, before)
    assert augment(both, 0, False, np.random.default_rng(1)) is both


def test_an_epoch_shows_every_image_once_in_even_batches() -> None:
    labelled = data(train_labels=np.arange(23))
    options = TrainOptions(batch_size=10, crop_padding=0, flip=False)
    batches = list(shuffled_batches(labelled, options, 0))
    assert [len(labels) for _, labels in batches] == [8, 8, 7]
    order = np.concatenate([labels for _, labels in batches])
    assert sorted(order) == list(range(23))
    assert not np.array_equal(order, np.arange(23))
    shown = np.concatenate([images for images, _ in batches])
    assert shown.dtype == np.float32
    assert np.array_equal(shown, normalize(labelled.train_images[order]))


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    def images(seed: int, epoch: int) -> Any:
        options = TrainOptions(batch_size=10, crop_padding=2, seed=seed)
        return np.concatenate([batch for batch, _ in shuffled_batches(data(), options, epoch)])

    assert np.array_equal(images(0, 3), images(0, 3))
    assert not np.array_equal(images(0, 3), images(0, 4))
    assert not np.array_equal(images(0, 3), images(1, 3))


def test_test_images_come_in_order_and_as_they_are() -> None:
    batches = list(ordered_batches(data(), 4))
    assert [len(labels) for _, labels in batches] == [4, 3]
    assert np.array_equal(np.concatenate([images for images, _ in batches]), normalize(data().test_images))


def changed(array: Any) -> Any:
    array = array.copy()
    array[(0,) * array.ndim] += 1
    return array


def test_fingerprint_changes_with_everything_training_reads() -> None:
    base = data()
    changes = [
        {"name": "other"},
        {"recipe": {"mean": 0.5}},
        {"normalize": lambda images: normalize(images) * 2},
        *(
            {part: changed(getattr(base, part))}
            for part in ("train_images", "train_labels", "test_images", "test_labels")
        ),
    ]
    prints = {fingerprint(dataclasses.replace(base, **change)) for change in changes}
    assert fingerprint(base) == fingerprint(data())
    assert len(prints | {fingerprint(base)}) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_images": np.zeros((23, 6, 5, 2), np.float32)}, "training images of noise are float32"),
        ({"test_images": np.zeros((7, 5, 6, 2), np.uint8)}, "test images of noise"),
        ({"train_images": np.zeros((23, 6, 5), np.uint8)}, "not uint8 N,H,W,C"),
        ({"train_labels": np.zeros(22, int)}, "one label for each"),
        ({"test_labels": np.zeros((7, 1), int)}, "one label for each"),
        ({"train_images": np.zeros((1, 6, 5, 2), np.uint8), "train_labels": np.zeros(1, int)}, "two images"),
        ({"train_labels": np.zeros(23)}, "float64"),
        ({"train_labels": np.arange(23) % 4}, "training image 3 of noise has label 3, outside 0 to 2"),
        ({"test_labels": np.full(7, -1)}, "label -1"),
        ({"normalize": lambda images: normalize(images)[:, :1]}, "in_channels"),
    ],
)
def test_data_that_does_not_suit(change: dict[str, Any], words: str) -> None:
    check_data(data(), CONFIG)
    with pytest.raises(InputError, match=words):
        check_data(data(**change), CONFIG)
