"""Whether a model answers an image the same in every batch it comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.verify.gate import Runner
from rir_deploy.verify.outputs import Tolerance


@dataclass(frozen=True)
class BatchCheck:
    """One batch size. ``max_abs_error`` is None where the batch could not be run, and ``reason`` says why."""

    size: int
    passed: bool
    max_abs_error: float | None
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def check_batches(
    run: Runner, images: NDArray[np.uint8], sizes: Sequence[int], tolerance: Tolerance, promised: int | None = None
) -> tuple[BatchCheck, ...]:
    """Run ``images`` [n, H, W, C] in batches of every size, repeated as far as needed to fill them.

    All sizes are held against the answers in batches of the first one. Images that are repeated have other neighbours
    then, so that whatever leaks from one image of a batch to another shows too. A size over the ``promised`` one may be
    more than the model takes: it is no failure, and the last that is tried. None promises all.
    """
    first, *others = sizes
    rows = np.arange(-(-len(images) // first) * first) % len(images)
    try:
        expected = np.concatenate([run(images[part]) for part in np.split(rows, len(rows) // first)])[: len(images)]
    except InputError as error:
        return (BatchCheck(first, False, None, str(error)),)
    checks = [_compare(first, expected, expected, tolerance)]
    for size in others:
        rows = np.arange(size) % len(images)
        try:
            found = run(images[rows])
        except InputError as error:
            if promised is not None and size > promised:
                break
            checks.append(BatchCheck(size, False, None, str(error)))
            continue
        checks.append(_compare(size, expected[rows], found, tolerance))
    return tuple(checks)


def _compare(
    size: int, expected: NDArray[np.floating], found: NDArray[np.floating], tolerance: Tolerance
) -> BatchCheck:
    if found.shape != expected.shape:
        return BatchCheck(size, False, None, f"{expected.shape} outputs were expected, not {found.shape}")
    error = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    bound = tolerance.atol + tolerance.rtol * float(np.abs(expected).max(initial=0.0))
    passed = error <= bound  # False for NaN
    return BatchCheck(size, passed, error, "" if passed else f"an output differs by {error:.3g}, over {bound:.3g}")
