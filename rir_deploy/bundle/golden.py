"""Golden arrays: ``.npy`` files that are read without trusting their headers."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError

IMAGES = np.dtype(np.uint8)
OUTPUTS = np.dtype("<f4")


def write_array(path: Path, array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> None:
    """Equal arrays give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ascontiguousarray(array, dtype=dtype), allow_pickle=False)


def read_array(path: Path, dtype: np.dtype[np.generic], rank: int) -> NDArray[np.generic]:
    """The array of a file that `write_array` wrote.

    Raises:
        InputError: another type or rank, or a size that is not that of its shape.
    """
    stream = io.BytesIO(path.read_bytes())
    try:
        version = np.lib.format.read_magic(stream)
        shape, column_major, found = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # the header is Python's syntax, and what is malformed raises nearly anything
        raise InputError(f"'{path.name}' is not an array ({type(error).__name__})") from error
    data = stream.getbuffer()[stream.tell() :]
    if version != (1, 0) or column_major or found != dtype or len(shape) != rank:
        raise InputError(f"'{path.name}' holds {found} of shape {shape}, not {dtype} of {rank} dimensions")
    if not all(type(size) is int and size > 0 for size in shape):  # the header may say anything that is Python
        raise InputError(f"'{path.name}' has no shape that an array can have: {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"the size of '{path.name}' is not that of its shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
