"""Channels that are zero for every input.

    zero(i)   =  row i reads only zeros and f(b_i) = 0,
              or row i has no weight above 0 over sources that are never negative, and f(x) = 0 for every x <= b_i

(the second is what a relu does to a channel that weight decay has pushed down for good). f is evaluated, with its own
attributes and bounds: where it never falls, it is zero from b_i downwards if it is zero at b_i and at the smallest
number. Decided on the numbers that will be stored, so that a weight that vanishes when it is cast is zero here too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.attributes import float_of
from rir_deploy.fold.evaluate import run_node
from rir_deploy.fold.forms import ChannelwiseOp, Source, Term
from rir_deploy.fold.kernels import Array, Kernel
from rir_deploy.fold.rules_channelwise import POOLING

Mask = NDArray[np.bool_]

_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus"})
_SMALLEST = float(np.finfo(np.float64).min)


class Silence:
    """``zero[source]``: which of its channels are always zero."""

    def __init__(self, nf: NormalForm) -> None:
        self.zero: dict[Source, Mask] = {}
        self._nf = nf
        self._never_negative: set[Source] = set()
        self._computed: dict[tuple[ChannelwiseOp, bytes], Array | None] = {}
        for source in nf.sources:
            self.zero[source] = self._zeros(source)

    def _zeros(self, source: Source) -> Mask:
        if source.operand is None:
            return np.zeros(source.channels, dtype=bool)
        bias = stored(source.operand.bias, source)
        silent, falling, rising = np.ones((3, source.channels), dtype=bool)
        for term in source.operand.terms:
            weight, known = self._heard(term, source), term.source in self._never_negative
            axes = tuple(range(1, weight.ndim))
            unheard = ~weight.any(axis=axes)
            silent &= unheard
            falling &= unheard | (known & (weight <= 0).all(axis=axes))
            rising &= unheard | (known & (weight >= 0).all(axis=axes))
        if self._is_never_negative(source, bool((rising & (bias >= 0)).all())):
            self._never_negative.add(source)
        result: Mask = np.zeros(source.channels, dtype=bool)
        if silent.any():
            result |= silent & self._is_zero_at(source.op, bias)
        if falling.any():
            result |= falling & self._is_zero_up_to(source.op, bias)
        return result

    def _heard(self, term: Term, reader: Source) -> Array:
        """The weights of a term, with zeros where they meet a channel that is zero."""
        weight = stored(term.kernel.weight, reader)
        zero = self.zero[term.source][term.start : term.stop]
        return np.where(by_row(term.kernel, zero), 0.0, weight) if zero.any() else weight

    def _is_never_negative(self, source: Source, inherits: bool) -> bool:
        op = source.op
        if op is None or op.op_type in POOLING:
            return inherits
        if op.op_type in _NEVER_NEGATIVE:
            return True
        least = self._values(op, np.array([_SMALLEST])) if op.op_type == "Clip" else None
        return least is not None and bool(least[0] >= 0)

    def _is_zero_at(self, op: ChannelwiseOp | None, bias: Array) -> Mask:
        """Whether the op gives zero for a channel that is ``bias`` everywhere."""
        if op is None or op.op_type in POOLING:  # a pool of zeros is zero; of another constant it may mix in padding
            return np.asarray(bias == 0)
        values = self._values(op, bias)
        return np.zeros(len(bias), dtype=bool) if values is None else np.asarray(values == 0)

    def _is_zero_up_to(self, op: ChannelwiseOp | None, bias: Array) -> Mask:
        """Whether the op gives zero for ``bias`` and for everything below."""
        if op is not None and op.op_type == "HardSwish":
            return np.asarray(bias <= -3.0)
        values = self._values(op, np.append(bias, _SMALLEST)) if op is not None and _never_falls(op) else None
        if values is None or values[-1] != 0:
            return np.zeros(len(bias), dtype=bool)
        return np.asarray(values[:-1] == 0)

    def _values(self, op: ChannelwiseOp, points: Array) -> Array | None:
        """A pointwise op at some points, in float64; None where it cannot be evaluated."""
        key = op, points.tobytes()
        if key not in self._computed:
            constants = [self._nf.constants.get(value) for value in op.template.inputs[1:]]
            widened = [None if array is None else array.astype(np.float64) for array in constants]
            found = run_node(op.template, [points, *widened], self._nf.opset)
            fits = found is not None and found.shape == points.shape
            self._computed[key] = found.astype(np.float64) if found is not None and fits else None
        return self._computed[key]


def _never_falls(op: ChannelwiseOp) -> bool:
    """Whether f(x) <= f(y) for all x <= y, of the ops that are zero over a range."""
    if op.op_type in ("Clip", "Relu"):
        return True
    slope_or_threshold = float_of(op.template, "alpha", 1.0)  # a threshold below zero lets negative numbers through
    return op.op_type in ("HardSigmoid", "ThresholdedRelu") and slope_or_threshold >= 0


def by_row(kernel: Kernel, columns: Mask) -> Mask:
    """A property of columns, as seen from the weight: [rows, cols / groups, 1...]."""
    seen = np.repeat(columns.reshape(kernel.groups, -1), kernel.rows // kernel.groups, axis=0)
    result: Mask = seen.reshape(*seen.shape, *(1,) * len(kernel.taps))
    return result


def stored(array: Array, reader: Source) -> Array:
    """The numbers as the folded graph will hold them."""
    dtype = reader.origin.dtype
    return array if dtype is None else array.astype(dtype.numpy()).astype(np.float64)
