"""From a weight matrix to integers: the rounding that does least harm to what the layer computes.

A layer is a matrix W [rows, columns] applied to inputs x [columns] (for a convolution: patches). An error D in a row
costs D H D^T, H being the covariance of the inputs where the bias is corrected after, which makes up for what their
mean moves, and E[x x^T] where it is not.
Rounding one column at a time and letting the columns that are still free make up for it minimises that greedily, in
closed form: Frantar et al., "GPTQ", arXiv 2210.17323. Rows do not know of one another, so a row may be tried at several
step sizes and keep the one that costs least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Steps = NDArray[np.float32]

# Regularisation, as a share of the mean of the diagonal of H: columns that are hardly ever used stay put.
_DAMPING = 0.01
_BLOCK = 128


@dataclass(frozen=True)
class Bounds:
    """The integers a weight may become: [rows, columns], both included."""

    low: Floats
    high: Floats

    @staticmethod
    def uniform(shape: tuple[int, ...], limit: int) -> Bounds:
        """-limit .. limit everywhere."""
        return Bounds(np.full(shape, -float(limit)), np.full(shape, float(limit)))

    def stacked(self, times: int) -> Bounds:
        return Bounds(np.tile(self.low, (times, 1)), np.tile(self.high, (times, 1)))


def round_nearest(matrix: Floats, steps: Steps, bounds: Bounds) -> Floats:
    """Integers [rows, columns] as floats, half to even."""
    return np.clip(np.rint(matrix / steps.astype(np.float64)[:, None]), bounds.low, bounds.high)


def choose_nearest(matrix: Floats, tried: list[Steps], bounds: Bounds, importance: Floats) -> tuple[Floats, Steps]:
    """Nearest integers at the steps, of those ``tried``, with the least squared error weighted by column.

    Args:
        tried: [rows] each; the first is kept unless another is better.
        importance: [columns]; the diagonal of H.
    """
    found = [round_nearest(matrix, steps, bounds) for steps in tried]
    errors = [
        ((integers * steps.astype(np.float64)[:, None] - matrix) ** 2) @ importance
        for integers, steps in zip(found, tried, strict=True)
    ]
    return _best(found, tried, errors)


def choose_second_order(matrix: Floats, tried: list[Steps], bounds: Bounds, moment: Floats) -> tuple[Floats, Steps]:
    """Integers by GPTQ at the steps, of those ``tried``, that cost least.

    Args:
        tried: [rows] each; the first is kept unless another is better.
        moment: H, [columns, columns].
    """
    rows = len(matrix)
    count = len(tried)
    integers, errors = _second_order(
        np.tile(matrix, (count, 1)), np.concatenate(tried), bounds.stacked(count), _damped(moment)
    )
    parts = [slice(i * rows, (i + 1) * rows) for i in range(count)]
    return _best([integers[part] for part in parts], tried, [errors[part] for part in parts])


def _best(found: list[Floats], tried: list[Steps], errors: list[Floats]) -> tuple[Floats, Steps]:
    best, steps, least = found[0], tried[0], errors[0]
    for integers, other, error in zip(found[1:], tried[1:], errors[1:], strict=True):
        better = error < least * (1 - 1e-9)
        best, steps = np.where(better[:, None], integers, best), np.where(better, other, steps)
        least = np.where(better, error, least)
    return best, steps


def _second_order(matrix: Floats, steps: Steps, bounds: Bounds, moment: Floats) -> tuple[Floats, Floats]:
    """Integers and what each row costs; columns are rounded in the order of their importance."""
    columns = matrix.shape[1]
    order = np.argsort(-np.diag(moment), kind="stable")
    # The upper Cholesky factor of H^-1 holds, column by column, what the columns behind have to make up for.
    upper = np.linalg.cholesky(np.linalg.inv(moment[np.ix_(order, order)])).T
    left, low, high = matrix[:, order], bounds.low[:, order], bounds.high[:, order]
    scale = steps.astype(np.float64)
    integers, cost = np.empty_like(left), np.zeros(len(left))
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.empty((len(left), end - start))
        block = left[:, start:end].copy()
        for i in range(end - start):
            column = start + i
            integers[:, column] = np.clip(np.rint(block[:, i] / scale), low[:, column], high[:, column])
            errors[:, i] = (block[:, i] - integers[:, column] * scale) / upper[column, column]
            block[:, i + 1 :] -= np.outer(errors[:, i], upper[column, column + 1 : end])
        left[:, end:] -= errors @ upper[start:end, end:]
        cost += (errors**2).sum(axis=1)
    return integers[:, np.argsort(order, kind="stable")], cost


def _damped(moment: Floats) -> Floats:
    mean = float(np.diag(moment).mean()) if len(moment) else 0.0
    return moment + np.eye(len(moment)) * (_DAMPING * mean if mean > 0 else 1.0)
