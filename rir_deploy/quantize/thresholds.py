"""Where to cut a histogram of absolute values: the threshold whose rounding and saturation together do least harm.

Mean squared error: the sum over all values of (x - x^)^2, x^ being x cut to the threshold and rounded to ``levels``
steps. Entropy: the Kullback-Leibler divergence from the histogram that is cut to the one that is rounded too
(S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Thresholds tried by squared error, from this share of the largest value to the whole.
_SMALLEST_SHARE = 0.1
_TRIALS = 181
# Bins the divergence is computed on: finer ones are mostly empty, and empty bins tell nothing.
_ENTROPY_BINS = 2048
_ENTROPY_STRIDE = 16


def mse_threshold(counts: Counts, width: float, largest: float, levels: int) -> float:
    """The threshold of least squared error.

    Args:
        counts: of |x| in bins of ``width``.
        largest: the largest |x|.
        levels: steps from 0 to the threshold: 127 for int8, 255 for uint8.
    """
    centers = np.asarray((np.arange(len(counts)) + 0.5) * width, dtype=np.float64)
    used = counts > 0
    # Values of bin 0 are mostly the exact zeros of a relu; zero rounds without error.
    centers, weights = (
        np.where(centers < width, 0.0, np.minimum(centers, largest))[used],
        counts[used].astype(np.float64),
    )
    thresholds = [largest * float(share) for share in np.linspace(1.0, _SMALLEST_SHARE, _TRIALS)]
    errors = [float(weights @ (_rounded(centers, threshold, levels) - centers) ** 2) for threshold in thresholds]
    return thresholds[int(np.argmin(errors))]


def _rounded(values: Floats, threshold: float, levels: int) -> Floats:
    step = threshold / levels
    return np.asarray(np.minimum(np.rint(values / step), levels) * step)


def entropy_threshold(counts: Counts, width: float, largest: float, levels: int) -> float:
    """The threshold of least divergence; the arguments are those of `mse_threshold`."""
    merged = counts.astype(np.float64)
    factor = max(1, len(counts) // _ENTROPY_BINS)
    merged = merged[: len(merged) // factor * factor].reshape(-1, factor).sum(axis=1)
    merged = merged[: int(np.flatnonzero(merged).max(initial=0)) + 1]
    merged[0] = 0.0  # the zeros of a relu are exact under any threshold, and would drown everything else
    bins = levels + 1
    cuts = [*range(bins, len(merged), _ENTROPY_STRIDE), len(merged)]
    divergences = [_divergence(merged, cut, bins) for cut in cuts]
    best = cuts[int(np.argmin(divergences))]
    return float(min(best * factor * width, largest))


def _divergence(counts: Floats, cut: int, bins: int) -> float:
    """Of the first ``cut`` bins, the rest saturated into the last, from the same in ``bins`` bins."""
    inside = counts[:cut]
    actual = inside.copy()
    actual[-1] += counts[cut:].sum()
    if cut <= bins or not inside.any():
        return 0.0 if cut >= len(counts) else float("inf")
    edges = (np.arange(bins) * cut) // bins
    sums = np.add.reduceat(inside, edges)
    filled = np.add.reduceat((inside > 0).astype(np.float64), edges)
    spread = np.repeat(np.divide(sums, filled, out=np.zeros(bins), where=filled > 0), np.diff([*edges, cut]))
    expected = np.where(inside > 0, spread, 0.0)
    p, q = actual / actual.sum(), expected / expected.sum()
    both = p > 0
    if (q[both] <= 0).any():  # what saturates falls into a bin that was empty
        q = np.maximum(q, 1e-10)
    return float((p[both] * np.log(p[both] / q[both])).sum())
