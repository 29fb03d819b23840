"""The one definition of preprocessing: training, calibration, parity and timing share it.

For a pixel u8 of channel c: x = (u8 / 255 - mean[c]) / std[c].
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from rir_deploy.data.tables import as_integer, as_list, as_number, check_table
from rir_deploy.errors import InputError

Uint8Array = npt.NDArray[np.uint8]
Mode = Literal["RGB", "L"]
Resize = Literal["none", "bilinear", "bicubic", "lanczos"]

MAX_SIDE = 8192
MIN_STD = 1e-4
_CHANNELS = {"RGB": 3, "L": 1}
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an 8-bit image becomes a network's input.

    Attributes:
        size: (height, width) in pixels, each 1 to `MAX_SIDE`.
        mode: "RGB" (3 channels) or "L" (grey, 1 channel).
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale, `MIN_STD` to 1.
        resize: how an image of another size is brought to ``size``, whatever its shape; "none" refuses it.

    Raises:
        InputError: a value out of range, or not one mean and one deviation a channel.
    """

    size: tuple[int, int]
    mode: Mode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize = "none"

    def __post_init__(self) -> None:
        if self.mode not in ("RGB", "L"):
            raise InputError(f"mode must be one of RGB, L, not {self.mode!r}")
        if self.resize not in ("none", *_FILTERS):
            raise InputError(f"resize must be one of none, {', '.join(_FILTERS)}, not {self.resize!r}")
        self._check_size()
        self._check_per_channel("mean", self.mean, 0.0)
        self._check_per_channel("std", self.std, MIN_STD)

    def _check_size(self) -> None:
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            raise InputError(f"size must be a tuple (height, width), not {self.size!r}")
        for side in self.size:
            if not 1 <= as_integer(side, "each side of size") <= MAX_SIDE:
                raise InputError(f"each side of size must be 1 to {MAX_SIDE} pixels, not {side}")

    def _check_per_channel(self, key: str, values: tuple[float, ...], low: float) -> None:
        if not isinstance(values, tuple) or len(values) != self.channels:
            raise InputError(f"{key} must be a tuple of {self.channels} numbers for mode {self.mode}, not {values!r}")
        for value in values:
            if not low <= as_number(value, f"each number of {key}") <= 1.0:
                raise InputError(
                    f"each number of {key} must be {low:g} to 1, not {value:g}; "
                    "it is on the 0..1 scale, so divide one on the 0..255 scale by 255"
                )

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for L."""
        return _CHANNELS[self.mode]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return (self.channels, *self.size)

    def fit(self, image: Uint8Array, name: str = "the image") -> Uint8Array:
        """Bring an image (H, W, 1 or 3; uint8) to the mode, then to the size; (H, W, C) uint8.

        Grey from colour is pillow's: ITU-R 601-2 luma. ``name`` stands for the image in messages.

        Raises:
            InputError: another shape or dtype, or another size while ``resize`` is "none".
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
            raise InputError(f"{name} must be uint8 of shape (H, W, 1 or 3), not {image.dtype} of shape {image.shape}")
        if image.shape == (*self.size, self.channels):
            return image
        height, width = self.size
        if image.shape[:2] != self.size and self.resize == "none":
            raise InputError(
                f"{name} is {image.shape[0]}x{image.shape[1]} but the recipe expects {height}x{width}; "
                "set resize in the recipe's [preprocess] table or give images of that size"
            )
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert(self.mode)
        if image.shape[:2] != self.size:
            picture = picture.resize((width, height), _FILTERS[self.resize])
        return np.asarray(picture, dtype=np.uint8).reshape(height, width, self.channels)

    def normalize(self, batch: Uint8Array) -> npt.NDArray[np.float32]:
        """A batch of fitted images (N, H, W, C; uint8) as network input (N, C, H, W; float32, contiguous).

        Raises:
            InputError: another shape or dtype.
        """
        expected = (*self.size, self.channels)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != expected:
            raise InputError(
                f"a batch must be uint8 of shape (N, {', '.join(map(str, expected))}), "
                f"not {batch.dtype} of shape {batch.shape}"
            )
        # A pixel has 256 values: the table is exact to the last float32 bit and cheaper than arithmetic.
        values = np.arange(256, dtype=np.float64) / 255.0
        output = np.empty((len(batch), *self.input_shape), dtype=np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            table = ((values - mean) / std).astype(np.float32)
            output[:, channel] = table[batch[..., channel]]
        return output

    def affine(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(scale, offset), each of shape (C,), with x = u8 * scale + offset: what a graph takes in."""
        mean, std = np.array(self.mean, dtype=np.float64), np.array(self.std, dtype=np.float64)
        return 1.0 / (255.0 * std), -mean / std

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON and TOML can hold."""
        data = asdict(self)
        return data | {key: list(data[key]) for key in ("size", "mean", "std")}

    @staticmethod
    def from_dict(data: object, where: str = "the preprocessing") -> Preprocessing:
        """Read what `to_dict` wrote; ``where`` stands for the table in messages.

        Raises:
            InputError: a key unknown or missing, a wrong type, a value out of range.
        """
        known = [field.name for field in fields(Preprocessing)]
        table = check_table(data, where, known[:-1], known[-1:])
        try:
            size = [as_integer(side, "each side of size") for side in as_list(table["size"], "size")]
            if len(size) != 2:
                raise InputError(f"size must be [height, width], not {size}")
            mean, std = (
                tuple(as_number(item, f"each number of {key}") for item in as_list(table[key], key))
                for key in ("mean", "std")
            )
            return Preprocessing((size[0], size[1]), table["mode"], mean, std, table.get("resize", "none"))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
