"""Channels that are zero for every input.

    zero(i)   =  row i reads only zeros and f(b_i) = 0,
              or row i has no weight above 0 over sources that are never negative, and f(x) = 0 for every x <= b_i

(the second is what a relu does to a channel that weight decay has pushed down for good). Decided on the numbers that
will be stored, so that a weight that vanishes when it is cast is zero here too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rir_deploy.fold.affine import NormalForm
from rir_deploy.fold.attributes import float_of
from rir_deploy.fold.forms import Source, Term
from rir_deploy.fold.kernels import Array, Kernel
from rir_deploy.fold.rules_channelwise import POOLING

Mask = NDArray[np.bool_]

_KEEP_ZERO = (
    frozenset(
        {
            "Abs",
            "Celu",
            "Clip",
            "Elu",
            "Erf",
            "Gelu",
            "HardSwish",
            "LeakyRelu",
            "Mish",
            "Relu",
            "Selu",
            "Softsign",
            "Swish",
        }
        | {"Tanh", "ThresholdedRelu"}
    )
    | POOLING
)
_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus"})


class Silence:
    """``zero[source]``: which of its channels are always zero."""

    def __init__(self, nf: NormalForm) -> None:
        self.zero: dict[Source, Mask] = {}
        self._nf = nf
        self._never_negative: set[Source] = set()
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
        low = _zero_up_to(source, self._low_clip(source))
        result: Mask = (silent & _zero_at(source, bias, low)) | (falling & (bias <= low))
        return result

    def _heard(self, term: Term, reader: Source) -> Array:
        """The weights of a term, with zeros where they meet a channel that is zero."""
        weight = stored(term.kernel.weight, reader)
        zero = self.zero[term.source][term.start : term.stop]
        return np.where(by_row(term.kernel, zero), 0.0, weight) if zero.any() else weight

    def _is_never_negative(self, source: Source, inherits: bool) -> bool:
        op = source.op.op_type if source.op is not None else ""
        if op in _NEVER_NEGATIVE or (op == "Clip" and self._low_clip(source) >= 0):
            return True
        return inherits and (source.op is None or op in POOLING)

    def _low_clip(self, source: Source) -> float:
        """The lower bound of a Clip; minus infinity where there is none."""
        if source.op is None or source.op.op_type != "Clip" or len(source.op.template.inputs) < 2:
            return -np.inf
        low = self._nf.constants.get(source.op.template.inputs[1])
        return -np.inf if low is None else float(low)


def by_row(kernel: Kernel, columns: Mask) -> Mask:
    """A property of columns, as seen from the weight: [rows, cols / groups, 1...]."""
    seen = np.repeat(columns.reshape(kernel.groups, -1), kernel.rows // kernel.groups, axis=0)
    result: Mask = seen.reshape(*seen.shape, *(1,) * len(kernel.taps))
    return result


def stored(array: Array, reader: Source) -> Array:
    """The numbers as the folded graph will hold them."""
    dtype = reader.origin.dtype
    return array if dtype is None else array.astype(dtype.numpy()).astype(np.float64)


def _zero_at(source: Source, bias: Array, low: float) -> Mask:
    if source.op is None or source.op.op_type in _KEEP_ZERO:
        result: Mask = (bias == 0) | (bias <= low)
        return result
    return bias <= low


def _zero_up_to(source: Source, low_clip: float) -> float:
    """The largest x such that the op is zero at x and at everything below."""
    if source.op is None:
        return -np.inf
    op, node = source.op.op_type, source.op.template
    if op == "Relu" or (op == "Clip" and low_clip == 0):
        return 0.0
    if op == "ThresholdedRelu":
        return max(float_of(node, "alpha", 1.0), 0.0)
    if op == "HardSigmoid":
        slope, offset = float_of(node, "alpha", 0.2), float_of(node, "beta", 0.5)
        return -offset / slope if slope > 0 else -np.inf
    return -3.0 if op == "HardSwish" else -np.inf
