"""Whether the calibration images are what the network was trained on: an FP32 model that fails on them was given
something else, and ranges found on that hold for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.data.dataset import Batch, Dataset
from rir_deploy.engines.base import input_spec
from rir_deploy.errors import InputError
from rir_deploy.onnx_file import read_provenance
from rir_deploy.quantize.ranges import Run

# Fewer images than these are too few to calibrate on, and to hold some back.
FEW = 32
# Images that top-1 is measured on at most, and how many a batch.
_IMAGES, _BATCH = 256, 32
# Top-1 may be this much lower: other images, fewer of them, another split. Chance adds to it, by so many deviations.
_TOLERANCE, _DEVIATIONS = 0.20, 3.0

OpenSession = Callable[[ir.Model, tuple[str, ...]], AbstractContextManager[Run]]


def few_images(count: int) -> str | None:
    """What to say of so few calibration images; None where they are enough."""
    if count >= FEW:
        return None
    return (
        f"calibrated on {count} image{'' if count == 1 else 's'} only: ranges and rounding may fit no others, and none "
        f"was held back to choose by; take {FEW} or more"
    )


def check_images(
    model: ir.Model, dataset: Dataset, indices: NDArray[np.int64], expected: float | None, open_session: OpenSession
) -> None:
    """Run the FP32 model on some of the calibration images and refuse images that it mostly gets wrong.

    Args:
        indices: of the calibration images.
        expected: top-1 that the user vouches for, a fraction; None takes what the model's provenance records, and
            without that, or without labels, nothing is checked.

    Raises:
        InputError: top-1 is far below, and why that may be; or it was vouched for, and there are no labels.
    """
    provenance = read_provenance(model)
    wanted = expected if expected is not None or provenance is None else provenance.top1
    if dataset.labels is None and expected is not None:
        raise InputError(f"'{dataset.source.name}' has no labels: top-1 cannot be held against --expect-top1")
    if wanted is None or dataset.labels is None:
        return
    some = indices[np.linspace(0, len(indices) - 1, min(_IMAGES, len(indices)), dtype=np.int64)]
    with open_session(model, ()) as run:
        top1 = _top1(model, run, dataset, dataset.batches(_BATCH, some))
    if top1 is not None and too_low(top1, len(some), wanted):
        said_by = "the checkpoint records" if expected is None else "--expect-top1 says"
        raise InputError(
            f"the FP32 model gets {100 * top1:.1f} % of {len(some)} calibration images of '{dataset.source.name}' "
            f"right, where {said_by} {100 * wanted:.1f} %: they are other images than it was trained for, or prepared "
            "otherwise (mean and std, order of the channels, resizing); check --data and --recipe"
        )


def too_low(top1: float, images: int, expected: float) -> bool:
    """Whether so low a share is neither tolerated nor chance."""
    floor = max(expected - _TOLERANCE, 0.0)
    return top1 < floor - _DEVIATIONS * float(np.sqrt(floor * (1.0 - floor) / images))


def _top1(model: ir.Model, run: Run, dataset: Dataset, batches: Iterable[Batch]) -> float | None:
    """None where the first output is not one row of scores an image."""
    raw, name = input_spec(model).dtype == "uint8", str(model.graph.outputs[0].name)
    hits: list[NDArray[Any]] = []
    for batch in batches:
        scores = run(batch.images if raw else batch.tensor(dataset.preprocessing))[name]
        if scores.ndim != 2:
            return None
        hits.append(scores.argmax(axis=1) == batch.labels)
    return float(np.concatenate(hits).mean())
