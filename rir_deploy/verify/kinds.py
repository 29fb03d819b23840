"""What a model's outputs are, by their values: logits, or the probabilities of a softmax.

The reference is judged by itself. A candidate is rounded, by INT8 to a step that may be larger than most probabilities
or than what rows may miss: it is of the reference's kind unless it is clearly the reference's answers of another one.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["logits", "probabilities", "log-probabilities"]
# Another reading is the candidate's where its error, as a share of the power, is under this and under so much of the
# error of the outputs as they are.
_FITS, _BETTER = 0.1, 0.1
# By so much the probabilities of an image may miss one: INT8 and FP16 round each of them.
_SUM = 0.05
# What rounding may leave below 0 or above 1.
_EDGE = 0.01


class KindOf:
    """Feed it outputs [n, classes], then ask for `kind`: of probabilities every row sums to one."""

    def __init__(self) -> None:
        self._rows, self._could_be = 0, {"probabilities": True, "log-probabilities": True}

    def update(self, outputs: Array) -> None:
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


class KindOfCandidate:
    """Feed it outputs [n, classes] of both sides, then ask for `kind`, given that of the reference."""

    def __init__(self) -> None:
        self._kind = KindOf()
        self._errors: dict[tuple[Kind, Kind], Array] = {}

    def update(self, reference: Array, candidate: Array) -> None:
        """Add a batch of equal shapes."""
        self._kind.update(candidate)
        if reference.ndim != 2 or reference.shape[1] < 2:
            return
        with np.errstate(all="ignore"):  # a wrong reading may overflow, and is no fit then
            for kinds, (left, right) in _readings(reference, candidate).items():
                sums = np.array([np.square(left - right).sum(), np.square(left).sum()])
                self._errors[kinds] = self._errors.get(kinds, np.zeros(2)) + sums

    def kind(self, reference: Kind) -> Kind:
        """The reference's, or the one that the candidate fits much better as."""
        shares = {read: self._share(reference, read) for read in get_args(Kind)}
        bound = min(_FITS, _BETTER * shares[reference])
        fitting = [read for read in shares if shares[read] < bound]
        own = self._kind.kind  # logarithms of probabilities fit as logits too
        return own if own in fitting else min(fitting, key=shares.__getitem__, default=reference)

    def _share(self, reference: Kind, read: Kind) -> float:
        error, power = self._errors.get((reference, read), np.full(2, np.inf))
        return float(error / power) if np.isfinite(error) and 0.0 < power < np.inf else np.inf


def _readings(reference: Array, candidate: Array) -> dict[tuple[Kind, Kind], tuple[Array, Array]]:
    """By the kind of the reference and the one that the candidate is read as: two arrays that are equal where both are
    right."""
    logs, other = log_softmax(reference), log_softmax(candidate)
    same: dict[tuple[Kind, Kind], tuple[Array, Array]] = {
        (kind, kind): (reference, candidate) for kind in get_args(Kind)
    }
    return {
        **same,
        ("logits", "probabilities"): (np.exp(logs), candidate),
        ("logits", "log-probabilities"): (logs, candidate),
        ("probabilities", "logits"): (reference, np.exp(other)),
        ("probabilities", "log-probabilities"): (reference, np.exp(candidate)),
        ("log-probabilities", "logits"): (reference, other),
        ("log-probabilities", "probabilities"): (np.exp(reference), candidate),
    }


def log_softmax(rows: Array) -> Array:
    """Of each row [n, classes]."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _one(sums: Array) -> bool:
    return bool((np.abs(sums - 1.0) <= _SUM).all())
