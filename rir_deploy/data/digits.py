"""Source: the 1797 handwritten digits (8x8, grey) that ship with scikit-learn: nothing is downloaded."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt

from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import BackendError

Split = Literal["all", "train", "test"]

_TEST_SHARE = 0.2
_SPLIT_SEED = 0


class DigitsSource:
    """``split`` of the digits: a fifth of each class is "test", the rest "train".

    Raises:
        BackendError: scikit-learn is not installed.
    """

    classes: tuple[str, ...] | None = tuple("0123456789")
    within: tuple[str | None, str | None] = (None, None)
    note: str | None = None

    def __init__(self, split: Split) -> None:
        self.name = "digits" if split == "all" else f"digits:{split}"
        images, labels = _load()
        keep = _split_indices(labels, split)
        self._images = images[keep]
        self.labels = labels[keep]

    def __len__(self) -> int:
        return len(self._images)

    def describe(self, index: int) -> str:
        """The source and the position."""
        return f"{self.name}[{index}]"

    def image(self, index: int) -> Uint8Array:
        """(8, 8, 1) uint8."""
        image: Uint8Array = self._images[index]
        return image

    def fingerprint(self) -> str:
        """Hex sha256 of the pixels and the labels."""
        return hashlib.sha256(self._images.tobytes() + self.labels.astype("<i8").tobytes()).hexdigest()


def _load() -> tuple[Uint8Array, npt.NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BackendError(
            "the digits come with scikit-learn, which is not installed; "
            "run 'python -m pip install scikit-learn' or give your own data"
        ) from error
    digits = load_digits()
    # 0..16 to 0..255, rounded half up.
    images = (digits.images.astype(np.int64) * 255 + 8) // 16
    return images.astype(np.uint8)[..., None], digits.target.astype(np.int64)


def _split_indices(labels: npt.NDArray[np.int64], split: Split) -> npt.NDArray[np.int64]:
    if split == "all":
        return np.arange(len(labels), dtype=np.int64)
    # RandomState's stream is frozen; a Generator's may change with numpy, and the split with it.
    random = np.random.RandomState(_SPLIT_SEED)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = random.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(len(members) * _TEST_SHARE)]] = True
    return np.flatnonzero(is_test if split == "test" else ~is_test).astype(np.int64)
