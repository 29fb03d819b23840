"""Source: an ``.npz`` with ``images`` and, where they are known, ``labels``."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rir_deploy.artifacts import sha256_file
from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

# The arrays are held in memory.
MAX_ARRAY_BYTES = 4 * 2**30
# Photos hardly get smaller, drawings by ten; deflate's own limit is 1032. Small arrays may be as empty as they like.
MAX_INFLATION, SMALL_BYTES = 100, 2**28
# zipfile bounds what one read inflates for these two only.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class NpzSource:
    """``images`` uint8 (N, H, W) or (N, H, W, 1 or 3) and, optional, ``labels`` integers (N,), in memory.

    Raises:
        InputError: not an .npz, truncated, pickled, an array of another dtype or shape or over the limit.
    """

    classes: tuple[str, ...] | None = None
    within: tuple[str | None, str | None] = (None, None)
    note: str | None = None

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        images, labels = _load(path)
        self._images = _check_images(images, path)
        self.labels = None if labels is None else _check_labels(labels, len(images), path)

    def __len__(self) -> int:
        return len(self._images)

    def describe(self, index: int) -> str:
        """The file and the position."""
        return f"{self.name}:images[{index}]"

    def image(self, index: int) -> Uint8Array:
        """(H, W, 1 or 3) uint8."""
        image: Uint8Array = self._images[index]
        return image

    def fingerprint(self) -> str:
        """Hex sha256 of the file."""
        return sha256_file(self._path)


def _load(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise InputError(f"'{path}' lacks the array 'images' (it has: {', '.join(arrays) or 'none'}); add it")
            return np.asarray(arrays["images"]), np.asarray(arrays["labels"]) if "labels" in arrays else None
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise nearly every built-in error on malformed bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"'{path}' is not an .npz of plain arrays, or is truncated ({reason})") from error


def _check_sizes(path: Path) -> None:
    """Compare each array's declared shape with its bytes, since numpy allocates what the header claims."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.removesuffix(".npy") not in ("images", "labels"):
                continue
            if info.file_size > MAX_ARRAY_BYTES:
                raise InputError(
                    f"'{path}' holds '{info.filename}' of {info.file_size} bytes, over the limit of "
                    f"{MAX_ARRAY_BYTES}; give a folder or a zip of images, which are streamed"
                )
            _check_packing(info, path)
            with archive.open(info) as member:
                shape, dtype = _read_header(member)
                declared = math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and declared != info.file_size - member.tell():
                    raise InputError(f"'{path}' is malformed: the size of '{info.filename}' is not that of its shape")


def _check_packing(info: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an array that a few bytes inflate to, before a byte of it is inflated."""
    if info.compress_type not in _METHODS:
        raise InputError(f"'{path}' compresses '{info.filename}' by an unusual method; save it with numpy.savez")
    if info.file_size > max(SMALL_BYTES, MAX_INFLATION * info.compress_size):
        raise InputError(
            f"'{path}' is refused: the {info.compress_size} bytes of '{info.filename}' inflate to {info.file_size}; "
            "save it with numpy.savez, without compression"
        )


def _read_header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"array format {version[0]}.{version[1]} is not supported")
    return shape, dtype


def _check_images(images: npt.NDArray[Any], path: Path) -> Uint8Array:
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise InputError(
            f"'images' of '{path}' must be uint8 of shape (N, H, W) or (N, H, W, 1 or 3), "
            f"not {images.dtype} of shape {shape}"
        )
    if images.size == 0:
        raise InputError(f"'images' of '{path}' is empty: its shape is {shape}")
    return images if len(shape) == 4 else images[..., None]


def _check_labels(labels: npt.NDArray[Any], count: int, path: Path) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise InputError(
            f"'labels' of '{path}' must be integers of shape ({count},), one an image, "
            f"not {labels.dtype} of shape {labels.shape}"
        )
    bad = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if bad.size:
        raise InputError(f"'labels' of '{path}' holds {labels[bad[0]]} at index {bad[0]}; labels count from 0")
    return labels.astype(np.int64)
