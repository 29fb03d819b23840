"""Which of two is better at something. A difference that chance or noise explains decides nothing:

1. agreement and top-1: on as many images as the two can be told apart by. Each side changes n (1 - agreement)
   predictions; of two counts that differ by chance alone, the difference is under two standard deviations,
   2 sqrt(sum of both), 95 times in 100. Top-1 of two checkpoints: 2 sqrt(n (p (1 - p) + q (1 - q))), as of two samples.
2. SQNR: under 0.5 dB, 6 % of the error; over 100 dB both are the rounding of FP32.
3. latency (median) and throughput under 5 %, as two timings of one engine differ; size under 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from rir_deploy.report.schema_engine import Verify

Better = Literal["first", "second", "level"]
LATENCY, SIZE = 0.05, 0.01
_SQNR_DB, _ROUNDING_DB = 0.5, 100.0


def by_images(
    first: Verify | None, second: Verify | None, share: Callable[[Verify], float | None], *, paired: bool = True
) -> Better | None:
    """By a share of images; None where it is not known of both, on as many images. ``paired``: of one checkpoint."""
    if first is None or second is None or first.images != second.images:
        return None
    left, right = share(first), share(second)
    if left is None or right is None:
        return None
    spread = (
        (1.0 - first.agreement) + (1.0 - second.agreement) if paired else left * (1.0 - left) + right * (1.0 - right)
    )
    if abs(left - right) * first.images <= 2.0 * math.sqrt(first.images * spread):
        return "level"
    return "first" if left > right else "second"


def by_sqnr(first: Verify | None, second: Verify | None) -> Better | None:
    """By the SQNR of the outputs; None where it is not known of both. Equal outputs have no error at all."""
    if first is None or second is None:
        return None
    left, right = _sqnr(first), _sqnr(second)
    if left is None or right is None:
        return None
    if left == right or abs(left - right) < _SQNR_DB or min(left, right) > _ROUNDING_DB:
        return "level"
    return "first" if left > right else "second"


def smaller(first: float | None, second: float | None, level: float) -> Better | None:
    """By the smaller figure; a difference of up to the share ``level`` of it is none."""
    if first is None or second is None:
        return None
    if abs(first - second) <= level * min(first, second):
        return "level"
    return "first" if first < second else "second"


def larger(first: float | None, second: float | None, level: float) -> Better | None:
    """By the larger figure, as `smaller`."""
    return smaller(second, first, level)


def _sqnr(verify: Verify) -> float | None:
    return math.inf if verify.max_abs_error == 0 else verify.sqnr_db
