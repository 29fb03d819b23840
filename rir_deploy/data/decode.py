"""Bytes of an image file → uint8 array, with every failure of the decoder turned into one sentence."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

# Only formats that pillow decodes in-process: EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "PPM", "WEBP", "TIFF", "GIF")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".webp", ".tif", ".tiff", ".gif"),
)
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000

_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
# EXIF's tag, and what brings an image with each of its values upright.
_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image_name(name: str) -> bool:
    """Whether ``name`` ends as an image file does, in either case."""
    return name.lower().endswith(EXTENSIONS)


def decode_image(data: bytes, name: str) -> Uint8Array:
    """Decode an image file to (H, W, 1) for a grey one or (H, W, 3) for any other; transparency is dropped.

    It comes as its EXIF orientation says that it is shown: upright, as a camera's frames reach a device. ``name``
    stands for the file in messages.

    Raises:
        InputError: too large, truncated, not an image, of several frames, or with more than 8 bits a channel.
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
    if image.mode not in _GREY + _COLOUR or _is_deep(image):
        depth = "" if image.mode not in _GREY + _COLOUR else " of 16 bits a channel"
        raise InputError(
            f"the image '{name}' has the pixel format {image.mode}{depth}, which 8 bits a channel cannot hold; "
            "convert it to 8-bit RGB or grey first"
        )
    # What a phone calls MPO is a photo, with another view of it behind.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError(f"the image '{name}' holds several frames or pages; save the one that is meant by itself")


def _is_deep(image: Image.Image) -> bool:
    """Whether more than 8 bits a channel would be cut off: pillow says so in how it unpacks them only."""
    for tile in getattr(image, "tile", ()):
        given = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(one, str) and ";16" in one for one in given):
            return True
        if image.format == "PPM" and any(isinstance(one, int) and one > 255 for one in given):
            return True
    return False


def _to_array(image: Image.Image) -> Uint8Array:
    plain = image.convert("L" if image.mode in _GREY else "RGB")
    turn = _UPRIGHT.get(_orientation(image))
    array = np.array(plain if turn is None else plain.transpose(turn), dtype=np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded image; 1 (as it is) where it has none that can be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what is wrong with its notes is no fault of the image
        return 1
