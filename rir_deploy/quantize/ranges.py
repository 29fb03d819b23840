"""Calibration: the range of every tensor over batches of data, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.quantize.histogram import GrowingHistogram
from rir_deploy.quantize.table import METHODS, Method, Range, RangeTable, Sources
from rir_deploy.quantize.thresholds import entropy_threshold, mse_threshold

# Of a session: one batch [N, ...] in, every observed tensor by name out.
Run = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class RangeOptions:
    """How ranges are found.

    Attributes:
        method: "minmax"; or the values within a threshold on |x|, set by the share ``percentile`` of them
            ("percentile"), by the least squared rounding error ("mse"), or by the least divergence ("entropy").
        percentile: over 50, up to 100; read by the method "percentile".
        unsigned: whether a tensor without negative values is rounded to 255 steps (uint8) rather than 127 (int8).
        bins: of the histogram behind a threshold, a power of two, 256 to 2**20; a percentile is off by at most
            2 / ``bins`` of the largest value, to the outside.

    Raises:
        InputError: a value out of range.
    """

    method: Method = "minmax"
    percentile: float = 99.99
    unsigned: bool = False
    bins: int = 8192

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not 50 < self.percentile <= 100:
            raise InputError(f"percentile must be over 50 and up to 100, not {self.percentile}")
        if not 256 <= self.bins <= 2**20 or self.bins & (self.bins - 1):
            raise InputError(f"bins must be a power of two from 256 to {2**20}, not {self.bins}")


class _Observer:
    """Extremes of one tensor and, for a threshold, its histogram."""

    def __init__(self, bins: int | None) -> None:
        self._min, self._max = np.inf, -np.inf
        self._histogram = None if bins is None else GrowingHistogram(bins)

    def update(self, name: str, array: NDArray[Any]) -> None:
        if array.size == 0 or array.dtype.kind not in "fiu":
            return
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # numpy's extremes carry NaN along
            raise InputError(
                f"calibration gives NaN or infinite numbers in the tensor '{name}'; check the data and the checkpoint"
            )
        self._min, self._max = min(self._min, low), max(self._max, high)
        if self._histogram is not None:
            self._histogram.add(array)

    def found(self, options: RangeOptions) -> Range | None:
        if self._min > self._max:
            return None
        largest = max(-self._min, self._max)
        if self._histogram is None or options.method == "minmax" or largest == 0.0:
            return Range(self._min, self._max)
        cut = self._threshold(self._histogram, largest, options)
        # No smaller than the smallest |x|: min <= max holds.
        return Range(max(self._min, -cut), min(self._max, cut))

    def _threshold(self, histogram: GrowingHistogram, largest: float, options: RangeOptions) -> float:
        if options.method == "percentile":
            return histogram.percentile(options.percentile)
        levels = 255 if options.unsigned and self._min >= 0 else 127
        search = mse_threshold if options.method == "mse" else entropy_threshold
        smallest = self._min if self._min > 0 else max(-self._max, 0.0)
        return max(search(histogram.counts, histogram.width, largest, levels), smallest)


class Observations:
    """What one pass over the data has seen of every tensor; any method's ranges follow from it.

    Args:
        histograms: names of the tensors to keep a histogram of; None for all. Others range from min to max.
        bins: of a histogram; None for extremes alone.
    """

    def __init__(self, bins: int | None = 8192, histograms: frozenset[str] | None = None) -> None:
        self._bins, self._histograms = bins, histograms
        self._observers: dict[str, _Observer] = {}
        self.samples = 0

    def add(self, input_name: str, batch: NDArray[Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Count one batch [N, ...] and every tensor it gave."""
        self.samples += len(batch)
        for name, array in ({input_name: batch} | dict(tensors)).items():
            if name not in self._observers:
                wanted = self._histograms is None or name in self._histograms
                self._observers[name] = _Observer(self._bins if wanted else None)
            self._observers[name].update(name, array)

    def ranges(self, options: RangeOptions) -> dict[str, Range]:
        return {name: r for name, observer in self._observers.items() if (r := observer.found(options)) is not None}


def collect_ranges(
    batches: Iterable[NDArray[Any]],
    run: Run,
    input_name: str,
    sources: Sources,
    options: RangeOptions = RangeOptions(),
) -> RangeTable:
    """Run every batch once and keep the range of the input and of every tensor that ``run`` returns.

    Args:
        batches: model inputs [N, ...], as many as there are.
        run: a session on a model that `mark_outputs` made.
        input_name: under which the batches themselves are recorded.
        sources: what the table will be bound to.

    Raises:
        InputError: no data, data that is one constant (zero), NaN or infinite numbers in any tensor.
    """
    observed = Observations(None if options.method == "minmax" else options.bins)
    for batch in batches:
        observed.add(input_name, batch, run(batch))
    return make_table(observed, input_name, sources, options)


def make_table(observed: Observations, input_name: str, sources: Sources, options: RangeOptions) -> RangeTable:
    """The table of a method.

    Raises:
        InputError: nothing was observed, or the data was one constant.
    """
    if observed.samples == 0:
        raise InputError("there is no calibration data: give at least one batch, INT8 ranges are never invented")
    ranges = observed.ranges(options)
    data = ranges.get(input_name)
    if data is None or data.min == data.max:
        value = "empty" if data is None else f"the constant {data.min:g}"
        raise InputError(
            f"the calibration data is {value} in all {observed.samples} samples; give images of the data set"
        )
    percentile = options.percentile if options.method == "percentile" else None
    return RangeTable(ranges, options.method, observed.samples, sources, percentile)
