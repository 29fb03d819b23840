"""Whether the calibration images are what the network was trained on: an FP32 model that fails on them was given
something else, and ranges found on that hold for nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.data.digests import image_digests
from rir_deploy.engines.base import input_spec
from rir_deploy.errors import InputError
from rir_deploy.onnx_file import read_provenance
from rir_deploy.quantize.ranges import Run

# Fewer images than these are too few to calibrate on, and to hold some back.
FEW = 32
# Images that top-1 is measured on at most, and how many a batch.
_IMAGES, _BATCH = 512, 32
# Top-1 may be this much lower: other images, fewer of them, another split. Chance adds to it, by so many deviations.
_TOLERANCE, _DEVIATIONS = 0.20, 3.0
# So much lower is worth a word: on images of the training top-1 is higher than what is recorded, which is of others.
_DOUBTFUL = 0.03

OpenSession = Callable[[ir.Model, tuple[str, ...]], AbstractContextManager[Run]]


def few_images(count: int) -> str | None:
    """What to say of so few calibration images; None where they are enough."""
    if count >= FEW:
        return None
    return (
        f"calibrated on {count} image{'' if count == 1 else 's'} only: ranges and rounding may fit no others, and none "
        f"was held back to choose by; take {FEW} or more"
    )


def repeated_images(dataset: Dataset, indices: NDArray[np.int64]) -> str | None:
    """What to say of calibration images that are mostly the same ones again; None where they are not.

    Raises:
        InputError: an image that is malformed or does not fit.
    """
    distinct, count = len(np.unique(image_digests(dataset, indices))), len(indices)
    if count < FEW or 2 * distinct > count:
        return None
    return (
        f"of the {count} calibration images of '{dataset.source.name}' only {distinct} "
        f"{'are' if distinct > 1 else 'is'} distinct: the others repeat them, and ranges that fit "
        "a few images may fit no others"
    )


def check_images(
    model: ir.Model, dataset: Dataset, indices: NDArray[np.int64], expected: float | None, open_session: OpenSession
) -> tuple[str, ...]:
    """Run the FP32 model on some of the calibration images and refuse images that it mostly gets wrong.

    Args:
        indices: of the calibration images.
        expected: top-1 that the user vouches for, a fraction; None takes what the model's provenance records. Without
            labels nothing is checked; without an accuracy, the order of the colours alone.

    Returns:
        What to warn of: top-1 is lower than chance explains, or higher with red and blue exchanged.

    Raises:
        InputError: top-1 is far below, and why that may be; or it was vouched for, and there are no labels.
    """
    provenance = read_provenance(model)
    wanted = expected if expected is not None or provenance is None else provenance.top1
    if dataset.labels is None and expected is not None:
        raise InputError(f"'{dataset.source.name}' has no labels: top-1 cannot be held against --expect-top1")
    if dataset.labels is None:
        return ()
    some = indices[np.linspace(0, len(indices) - 1, min(_IMAGES, len(indices)), dtype=np.int64)]
    with open_session(model, ()) as run:
        hits = _hits(model, run, dataset, some)
        if hits is None:
            return ()
        exchanged = _hits(model, run, dataset, some, exchange=True) if dataset.preprocessing.mode == "RGB" else None
    found: list[str] = []
    if exchanged is not None and _clearly_more(exchanged, hits):
        found.append(
            f"the FP32 model gets {100 * exchanged.mean():.1f} % of {len(some)} calibration images of "
            f"'{dataset.source.name}' right with red and blue exchanged, and {100 * hits.mean():.1f} % as they are: "
            "they seem to be BGR where it was trained on RGB, or the other way round"
        )
    if wanted is None:
        return tuple(found)
    top1 = float(hits.mean())
    said_by = "the checkpoint records" if expected is None else "--expect-top1 says"
    said = (
        f"the FP32 model gets {100 * top1:.1f} % of {len(some)} calibration images of '{dataset.source.name}' "
        f"right, where {said_by} {100 * wanted:.1f} %: they"
    )
    otherwise = (
        "other images than it was trained for, or prepared otherwise (mean and std, order of the channels, resizing"
    )
    if too_low(top1, len(some), wanted):
        raise InputError(f"{said} are {otherwise}); check --data and --recipe")
    if doubtful(top1, len(some), wanted):
        found.append(f"{said} may be {otherwise}), or wrongly labelled; check --data and --recipe")
    return tuple(found)


def too_low(top1: float, images: int, expected: float) -> bool:
    """Whether so low a share is neither tolerated nor chance."""
    floor = max(expected - _TOLERANCE, 0.0)
    return top1 < floor - _DEVIATIONS * _deviation(floor, images)


def doubtful(top1: float, images: int, expected: float) -> bool:
    """Whether a share is lower than images like those of the training can be expected to give, and by no chance."""
    return expected - top1 > max(_DOUBTFUL, _DEVIATIONS * _deviation(expected, images))


def _deviation(share: float, images: int) -> float:
    return float(np.sqrt(share * (1.0 - share) / images))


def _clearly_more(hits: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Of the images that one gets right and the other wrong, by McNemar's statistic; both on the same images."""
    more, fewer = int((hits & ~others).sum()), int((others & ~hits).sum())
    return more - fewer > _DEVIATIONS * float(np.sqrt(more + fewer))


def _hits(
    model: ir.Model, run: Run, dataset: Dataset, indices: NDArray[np.int64], *, exchange: bool = False
) -> NDArray[np.bool_] | None:
    """Which images are got right; None where the first output is not one row of scores an image.

    Args:
        exchange: the first and the last colour of every image.
    """
    raw, name = input_spec(model).dtype == "uint8", str(model.graph.outputs[0].name)
    hits: list[NDArray[np.bool_]] = []
    for batch in dataset.batches(_BATCH, indices):
        given = replace(batch, images=np.ascontiguousarray(batch.images[..., ::-1])) if exchange else batch
        scores = run(given.images if raw else given.tensor(dataset.preprocessing))[name]
        if scores.ndim != 2:
            return None
        hits.append(scores.argmax(axis=1) == batch.labels)
    return np.concatenate(hits)
