"""Whether folded weights can be stored in the type that they will have.

All arithmetic of the fold is float64; what it writes has the type of the graph that came in. A product of weights and
scales that each fit may be larger than the largest number of that type, or so small that it is rounded away. Such a
node stays as it is: its runtime scales the numbers of the image, which are of another size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.forms import Affine, Segment
from rir_deploy.fold.kernels import Array, Kernel

# Rounding to the type may take this share of what a row weighs; FP16 takes 0.0005, bfloat16 0.004.
_MAX_LOSS = 0.01


@dataclass(frozen=True)
class _Range:
    largest: float
    smallest: float  # above zero


_RANGES = {
    ir.DataType.FLOAT16: _Range(65504.0, 2.0**-24),
    ir.DataType.BFLOAT16: _Range((2 - 2.0**-7) * 2.0**127, 2.0**-133),
    ir.DataType.FLOAT: _Range((2 - 2.0**-23) * 2.0**127, 2.0**-149),
    ir.DataType.DOUBLE: _Range(float(np.finfo(np.float64).max), 2.0**-1074),
}


def misfit(form: Affine, dtype: ir.DataType) -> str | None:
    """Why the weights of a form cannot be stored in ``dtype``; None where they can."""
    limits = _RANGES[dtype]
    if not all(_is_within(segment, limits.largest) for segment in form.segments):
        return f"folded, its weights would be too large for {dtype.name}, or no numbers"
    if any(_is_lost(term.kernel, segment.bias, dtype) for segment in form.segments for term in segment.terms):
        return f"folded, its weights would be too small for {dtype.name}"
    return None


def _is_within(segment: Segment, largest: float) -> bool:
    """Whether the bias and every sum of the kernels fit. NaN does not."""
    if not (np.abs(segment.bias) <= largest).all():
        return False
    total = np.sum([term.kernel.row_sums for term in segment.terms], axis=0)
    if (total <= largest).all():
        return True
    return bool(sum(float(np.abs(term.kernel.weight).max()) for term in segment.terms) <= largest)


def _is_lost(kernel: Kernel, bias: Array, dtype: ir.DataType) -> bool:
    """Whether any row loses more than `_MAX_LOSS` of itself, and of its bias whatever number of the type it reads."""
    rows, limits = kernel.row_sums, _RANGES[dtype]
    per_row = kernel.weight.size // max(kernel.rows, 1)
    if ((rows == 0) | (rows * _MAX_LOSS > per_row * limits.smallest)).all():
        return False  # rounding takes half of the smallest number a weight at most
    stored = kernel.weight.astype(dtype.numpy()).astype(np.float64)
    lost = np.abs(stored - kernel.weight).reshape(kernel.rows, -1).sum(axis=1)
    return bool((lost > _MAX_LOSS * np.maximum(rows, np.abs(bias) / limits.largest)).any())
