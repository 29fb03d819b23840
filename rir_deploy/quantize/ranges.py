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

# Of a session: one batch [N, ...] in, every observed tensor by name out.
Run = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class RangeOptions:
    """How ranges are found.

    Attributes:
        method: "minmax", or "percentile": min and max, cut where the share ``percentile`` of the absolute values lies.
        percentile: over 50, up to 100; read by the method "percentile".
        bins: of the histogram behind the percentile, a power of two, 256 to 2**20; a cut is off by at most
            2 / ``bins`` of the largest value, to the outside.

    Raises:
        InputError: a value out of range.
    """

    method: Method = "minmax"
    percentile: float = 99.99
    bins: int = 8192

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not 50 < self.percentile <= 100:
            raise InputError(f"percentile must be over 50 and up to 100, not {self.percentile}")
        if not 256 <= self.bins <= 2**20 or self.bins & (self.bins - 1):
            raise InputError(f"bins must be a power of two from 256 to {2**20}, not {self.bins}")


class _Observer:
    """Extremes of one tensor and, for a percentile, its histogram."""

    def __init__(self, options: RangeOptions) -> None:
        self._options = options
        self._min, self._max = np.inf, -np.inf
        self._histogram = GrowingHistogram(options.bins) if options.method == "percentile" else None

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

    def found(self) -> Range | None:
        if self._min > self._max:
            return None
        if self._histogram is None:
            return Range(self._min, self._max)
        cut = self._histogram.percentile(self._options.percentile)  # no smaller than the smallest |x|: min <= max holds
        return Range(max(self._min, -cut), min(self._max, cut))


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
    observers: dict[str, _Observer] = {}
    samples = 0
    for batch in batches:
        samples += len(batch)
        _observe(observers, input_name, batch, options)
        for name, array in run(batch).items():
            _observe(observers, name, array, options)
    if samples == 0:
        raise InputError("there is no calibration data: give at least one batch, INT8 ranges are never invented")
    ranges = {name: found for name, observer in observers.items() if (found := observer.found()) is not None}
    data = ranges.get(input_name)
    if data is None or data.min == data.max:
        value = "empty" if data is None else f"the constant {data.min:g}"
        raise InputError(f"the calibration data is {value} in all {samples} samples; give images of the data set")
    percentile = options.percentile if options.method == "percentile" else None
    return RangeTable(ranges, options.method, samples, sources, percentile)


def _observe(observers: dict[str, _Observer], name: str, array: NDArray[Any], options: RangeOptions) -> None:
    if name not in observers:
        observers[name] = _Observer(options)
    observers[name].update(name, array)
