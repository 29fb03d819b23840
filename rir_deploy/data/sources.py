"""A source of images, and what a user may write for one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rir_deploy.data.archive import ZipSource
from rir_deploy.data.cifar import is_cifar_folder, open_cifar_file, open_cifar_folder
from rir_deploy.data.digits import DigitsSource, Split
from rir_deploy.data.folder import FolderSource
from rir_deploy.data.npz import NpzSource
from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError, UsageError, unknown_name

ACCEPTED = (
    "'digits', 'digits:train', 'digits:test', a folder of images (one folder a class, or images only), "
    "a .zip of one, an .npz with 'images' and 'labels', or the binary version of CIFAR-10/100 "
    "(a .bin file, or its folder with ':train' or ':test')"
)
_DIGITS: dict[str, Split] = {"digits": "all", "digits:train": "train", "digits:test": "test"}


class Source(Protocol):
    """Images in a fixed order; labels are known before an image is decoded."""

    @property
    def name(self) -> str:
        """What the user wrote for it."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels, where the source has them."""

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """(N,), counted from 0, where the source has them."""

    @property
    def within(self) -> tuple[str | None, str | None]:
        """Of images without labels: the folder in the source that all lie in, and the source's own name; either may be
        their class. None where there is none."""

    @property
    def note(self) -> str | None:
        """What to know of the source: how many files of it are not read, and of which kinds."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Uint8Array:
        """Decode one image: (H, W, 1 or 3) uint8. Raises InputError for one that is malformed."""

    def describe(self, index: int) -> str:
        """What stands for the image in messages: a path, a member, a position."""

    def fingerprint(self) -> str:
        """Hex sha256 of the content: a file's of itself, a folder's of sorted relative names and bytes."""


def open_source(spec: str) -> Source:
    """Open what ``spec`` names; `ACCEPTED` lists the forms. The digits come before a file of that name.

    Raises:
        UsageError: nothing of that name is there.
        InputError: it is there but malformed, truncated, empty or of no accepted form.
        BackendError: the digits, without scikit-learn.
    """
    if spec in _DIGITS:
        return DigitsSource(_DIGITS[spec])
    if spec and _exists(Path(spec)):
        path, split = Path(spec), None
    else:
        path, split = _cut_split(spec)
    try:
        return _open_path(path, split)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a NUL, a folder that may not be searched
        return False


def _cut_split(spec: str) -> tuple[Path, str]:
    """``folder:train`` as its two parts; refuses what is not there."""
    head, _, split = spec.rpartition(":")
    if head and split in ("train", "test") and _exists(Path(head)):
        return Path(head), split
    if spec.isidentifier() or spec.startswith("digits:"):
        raise unknown_name("data", spec, [*_DIGITS, "or a path: a folder, .zip, .npz or .bin"])
    raise UsageError(f"the data '{spec}' does not exist; give {ACCEPTED}")


def _open_path(path: Path, split: str | None) -> Source:
    if path.is_dir() and is_cifar_folder(path):
        return open_cifar_folder(path, split or "train")
    if split:
        raise UsageError(
            f"':{split}' is for the digits and the folder of CIFAR's binary version, and '{path}' is neither "
            "of them; name the folder or file of that part instead"
        )
    if path.is_dir():
        return FolderSource(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return ZipSource(path)
    if suffix == ".npz":
        return NpzSource(path)
    if suffix == ".bin":
        return open_cifar_file(path)
    raise InputError(f"the data '{path}' is of no known form; give {ACCEPTED}")
