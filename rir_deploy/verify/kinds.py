"""What a model's outputs are, by their values: logits, or the probabilities of a softmax."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["logits", "probabilities", "log-probabilities"]
# By so much the probabilities of an image may miss one: INT8 and FP16 round each of them.
_SUM = 0.05
# What rounding may leave below 0 or above 1.
_EDGE = 0.01


class KindOf:
    """Feed it outputs [n, classes], then ask for `kind`: of probabilities every row sums to one."""

    def __init__(self) -> None:
        self._rows, self._could_be = 0, {"probabilities": True, "log-probabilities": True}

    def update(self, outputs: NDArray[np.float64]) -> None:
        if outputs.ndim != 2 or outputs.shape[1] < 2 or not np.isfinite(outputs).all():
            self._could_be = dict.fromkeys(self._could_be, False)
            return
        self._rows += len(outputs)
        inside = outputs.min(initial=0.0) >= -_EDGE and outputs.max(initial=0.0) <= 1.0 + _EDGE
        self._could_be["probabilities"] &= bool(inside and _one(outputs.sum(axis=1)))
        logs = outputs.max(initial=-np.inf) <= _EDGE and _one(np.exp(np.minimum(outputs, _EDGE)).sum(axis=1))
        self._could_be["log-probabilities"] &= bool(logs)

    @property
    def kind(self) -> Kind:
        if self._rows and self._could_be["probabilities"]:
            return "probabilities"
        return "log-probabilities" if self._rows and self._could_be["log-probabilities"] else "logits"


def _one(sums: NDArray[np.float64]) -> bool:
    return bool((np.abs(sums - 1.0) <= _SUM).all())
