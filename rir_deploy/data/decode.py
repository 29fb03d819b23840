"""Bytes of an image file → uint8 array, with every failure of the decoder turned into one sentence."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

# Only formats that pillow decodes in-process: EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".webp")
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000

_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def is_image_name(name: str) -> bool:
    """Whether ``name`` ends as an image file does, in either case."""
    return name.lower().endswith(EXTENSIONS)


def decode_image(data: bytes, name: str) -> Uint8Array:
    """Decode an image file to (H, W, 1) for a grey one or (H, W, 3) for any other; transparency is dropped.

    ``name`` stands for the file in messages.

    Raises:
        InputError: too large, truncated, not an image, or with more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, name)
            return _to_array(image)
    except InputError:
        raise
    except Exception as error:  # pillow's plugins raise nearly every built-in error on malformed bytes
        raise InputError(
            f"cannot decode the image '{name}': it is truncated, malformed or not one of "
            f"{', '.join(FORMATS)} ({type(error).__name__})"
        ) from error


def _check_header(image: Image.Image, name: str) -> None:
    # The pixels are not decoded yet: a decompression bomb stops here.
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"the image '{name}' is {image.height}x{image.width}, over the limit of {MAX_PIXELS} pixels; "
            "scale it down first"
        )
    if image.mode not in _GREY + _COLOUR:
        raise InputError(
            f"the image '{name}' has the pixel format {image.mode}, which 8 bits a channel cannot hold; "
            "convert it to 8-bit RGB or grey first"
        )


def _to_array(image: Image.Image) -> Uint8Array:
    array = np.array(image.convert("L" if image.mode in _GREY else "RGB"), dtype=np.uint8)
    return array[..., None] if array.ndim == 2 else array
