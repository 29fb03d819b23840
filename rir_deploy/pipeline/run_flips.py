"""The images of a run that an engine does not call as the checkpoint does: a few of each engine, and their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.pipeline.run_steps import RunSteps
from rir_deploy.pipeline.verify import Verified

Record = dict[str, Any]
# Flips in the record, an engine; all are counted.
FLIPS = 16
# A picture's longer side in pixels, and the base64 of all pictures in bytes: the report stays small.
_SIDE, _BYTES = 64, 600_000


def with_flips(verified: Verified) -> Record:
    """A proof for the record, with the flips that are hardest to explain: where the reference was surest."""
    names = verified.views.recipe.classes
    found = sorted(verified.flips(), key=lambda flip: (-float(flip["reference_margin"]), flip["image"]))
    flips = [
        {
            "image": flip["image"],
            "name": flip["name"],
            "label": None if flip["label"] is None else names[flip["label"]],
            "reference": flip["classes"][0],
            "candidate": flip["classes"][1],
            "reference_margin": flip["reference_margin"],
            "candidate_margin": flip["candidate_margin"],
        }
        for flip in found[:FLIPS]
    ]
    return {**verified.to_dict(), "flips": flips}


def make_pictures(run: RunSteps, engines: Sequence[Record]) -> dict[str, str]:
    """PNG in base64 by image, of the flips in the record; the surest ones first, as far as they are small enough."""
    flips = sorted((-flip["reference_margin"], flip["image"]) for one in engines for flip in one["verify"]["flips"])
    images = list(dict.fromkeys(image for _, image in flips))
    data = run.dataset("test")
    inputs = {"images": images, "data": data.source.fingerprint(), "recipe": run.recipe.to_dict(), "side": _SIDE}
    return run.step("pictures", inputs, [], lambda: _within(images, lambda image: to_png(data.raw([image])[0])))


def _within(images: Sequence[int], draw: Callable[[int], bytes]) -> dict[str, str]:
    """Pictures in base64, until they are too much."""
    pictures, total = {}, 0
    for image in images:
        text = base64.b64encode(draw(image)).decode("ascii")
        total += len(text)
        if total > _BYTES:
            break
        pictures[str(image)] = text
    return pictures


def to_png(image: NDArray[np.uint8]) -> bytes:
    """An image [H, W, C] of one or three channels as PNG, at most `_SIDE` pixels high and wide."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image[..., :3])
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, format="png", optimize=True)
    return stream.getvalue()
