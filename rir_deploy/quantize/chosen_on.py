"""The images on which it was chosen what stays in float, by content: a proof needs others."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.strict_data import parse_json

CHOSEN_ON_KEY = "rir_deploy.chosen_on"
# Digests in a record at most, 128 KiB: of more images, the smallest digests stand for all.
MOST = 2**14

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("sha256", "images", "digests")


@dataclass(frozen=True)
class ChosenOn:
    """Labelled images that a budget of accuracy was kept on.

    Attributes:
        sha256: fingerprint of the source they came from.
        images: how many there were, at least 1.
        digests: of the images, 8 bytes each, little-endian, ascending, without repeats; of more than 16,384 images the
            smallest ones. Those are a fair sample: of k common images, the share that is recorded is found.

    Raises:
        ValueError: anything else.
    """

    sha256: str
    images: int
    digests: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r} is no sha256 in lower case")
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise ValueError(f"{self.images!r} is no number of images")
        count, rest = divmod(len(self.digests), 8)
        if rest or not 1 <= count <= min(self.images, MOST):
            raise ValueError(f"{len(self.digests)} bytes are no digests of {self.images} images")
        if (self._sorted[1:] <= self._sorted[:-1]).any():
            raise ValueError("the digests do not ascend")

    @staticmethod
    def of(sha256: str, digests: NDArray[np.uint64]) -> ChosenOn:
        """From the digests of all images, in any order."""
        return ChosenOn(sha256, len(digests), np.unique(digests)[:MOST].astype("<u8").tobytes())

    @property
    def _sorted(self) -> NDArray[np.uint64]:
        return np.frombuffer(self.digests, dtype="<u8").astype(np.uint64)

    @property
    def is_sample(self) -> bool:
        """Whether not all of the images may be recorded."""
        return self.images > MOST

    def among(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of other images, by their digests [n], are recorded here: their positions."""
        return np.flatnonzero(np.isin(digests, self._sorted)).astype(np.int64)

    def to_dict(self) -> dict[str, object]:
        digests = base64.b64encode(self.digests).decode("ascii")
        return {"sha256": self.sha256, "images": self.images, "digests": digests}

    @staticmethod
    def from_dict(data: Any) -> ChosenOn:
        """Read what `to_dict` wrote; ValueError on anything else."""
        if not isinstance(data, dict) or set(data) != set(_KEYS) or not isinstance(data["digests"], str):
            raise ValueError(f"the images chosen on need exactly the keys {', '.join(_KEYS)}")
        found = ChosenOn(data["sha256"], data["images"], base64.b64decode(data["digests"], validate=True))
        if found.to_dict() != data:
            raise ValueError("the digests are not in canonical base64")
        return found


def write_chosen_on(model: ir.Model, found: ChosenOn) -> None:
    """Note the images in the model's metadata."""
    model.metadata_props[CHOSEN_ON_KEY] = json.dumps(found.to_dict(), sort_keys=True)


def read_chosen_on(model: ir.Model) -> ChosenOn | None:
    """The images, or None where nothing was chosen.

    Raises:
        InputError: the record is malformed.
    """
    text = model.metadata_props.get(CHOSEN_ON_KEY)
    try:
        return None if text is None else ChosenOn.from_dict(parse_json(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"the record of the images that layers were chosen on is malformed ({error}); quantise again"
        ) from error
