"""A histogram of absolute values whose range grows with the data, in constant memory.

The range is a power of two R over the largest value seen, cut into B equal bins. Where a larger value comes, pairs of
bins are added and R doubles. Scaling by a power of two is exact in floating point, so the counts do not depend on how
the data was cut into batches or in which order they came.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError


class GrowingHistogram:
    """Counts of |x|. ``bins`` is a power of two, at least 2."""

    def __init__(self, bins: int) -> None:
        if bins < 2 or bins & (bins - 1):
            raise InputError(f"a histogram takes a power of two of bins, at least 2, not {bins}")
        self.counts: NDArray[np.int64] = np.zeros(bins, dtype=np.int64)
        self._exponent: int | None = None  # R = 2**exponent
        self._zeros = 0  # kept apart until something tells the range

    def add(self, values: NDArray[np.floating]) -> None:
        """Count finite values of any shape; numbers that are not float32 or float64 are counted as float64."""
        absolute = np.abs(values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)).ravel()
        largest = float(absolute.max(initial=0.0))
        if largest > 0.0:
            self._cover(math.frexp(largest)[1])
        if self._exponent is None:
            self._zeros += absolute.size
            return
        bins = len(self.counts)
        index = np.ldexp(absolute, bins.bit_length() - 1 - self._exponent).astype(np.int64)
        self.counts += np.bincount(index, minlength=bins)

    def _cover(self, exponent: int) -> None:
        if self._exponent is None:
            self._exponent = exponent
            self.counts[0] += self._zeros
        while self._exponent < exponent and self.counts[1:].any():
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([half, np.zeros_like(half)])
            self._exponent += 1
        self._exponent = max(self._exponent, exponent)

    @property
    def width(self) -> float:
        """Of a bin; 0 before a value other than zero came."""
        return 0.0 if self._exponent is None else math.ldexp(1.0, self._exponent - (len(self.counts).bit_length() - 1))

    def percentile(self, percentile: float) -> float:
        """The upper edge of the bin where the share of values reaches ``percentile`` (0 to 100); 0 for no values."""
        if self._exponent is None:
            return 0.0
        wanted = self.counts.sum() * (percentile / 100.0)
        index = int(np.searchsorted(np.cumsum(self.counts), wanted, side="left"))
        return (min(index, len(self.counts) - 1) + 1) * self.width
