"""Images by content: what counts as the same image, and what does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.digests import image_digests
from rir_deploy.data.sources import open_source
from rir_deploy.recipe import load_recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", images=IMAGES)
    return tmp_path / "a.npz"


def dataset(path: Path) -> Dataset:
    return Dataset(open_source(str(path)), load_recipe("digits").preprocessing)


def test_the_digest_of_an_image(archive: Path) -> None:
    expected = [hashlib.sha256(b"(8, 8, 1)" + image.tobytes()).hexdigest()[:16] for image in IMAGES]
    found = image_digests(dataset(archive))
    assert found.astype("<u8").tobytes().hex() == "".join(expected)
    assert image_digests(dataset(archive), [4, 1]).tolist() == found[[4, 1]].tolist()
    assert image_digests(dataset(archive), []).tolist() == []


def test_other_files_of_the_same_images_agree(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(IMAGES):
        Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    assert image_digests(dataset(folder)).tolist() == image_digests(dataset(archive)).tolist()


def test_one_pixel_makes_another_image(archive: Path, tmp_path: Path) -> None:
    other = IMAGES.copy()
    other[2, 7, 7, 0] ^= 1
    np.savez(tmp_path / "b.npz", images=other)
    same = image_digests(dataset(tmp_path / "b.npz")) == image_digests(dataset(archive))
    assert same.tolist() == [True, True, False, True, True, True]


def test_progress_is_told(archive: Path) -> None:
    told: list[tuple[int, int]] = []
    image_digests(dataset(archive), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)
