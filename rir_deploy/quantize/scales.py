"""The arithmetic of quantisation, on arrays alone.

q = saturate(round_half_to_even(x / scale) + zero_point) and x ~ (q - zero_point) * scale, as ONNX's QuantizeLinear and
DequantizeLinear define them (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]

_SMALLEST = float(np.finfo(np.float32).tiny)
_SMALLEST_HALF, _LARGEST_HALF = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
# Half of int32: the other half is for the sum of products that the bias is added to.
_BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class Affine:
    """A scale and a zero point: float32 with a scalar or one number a channel of ``axis``, and an integer type."""

    scale: NDArray[np.float32]
    zero_point: Integers
    axis: int | None = None

    def quantize(self, array: Floats) -> Integers:
        """Integers of the zero point's type."""
        scale, zero_point = self._spread(array.ndim)
        info = np.iinfo(self.zero_point.dtype)
        # In float64, since an int32 bias has more digits than a float32 quotient.
        steps = np.rint(array.astype(np.float64) / scale) + zero_point
        return np.clip(steps, info.min, info.max).astype(self.zero_point.dtype)

    def dequantize(self, array: Integers) -> NDArray[np.float32]:
        scale, zero_point = self._spread(array.ndim)
        return ((array.astype(np.int64) - zero_point) * scale).astype(np.float32)

    def _spread(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        shape = [-1 if axis == self.axis else 1 for axis in range(rank)] if self.axis is not None else []
        return self.scale.astype(np.float64).reshape(shape), self.zero_point.astype(np.int64).reshape(shape)


def symmetric_int8(low: float, high: float, *, half: bool = False) -> Affine:
    """-max|x| .. max|x| onto -127 .. 127; ``half`` makes the scale an FP16 number."""
    scale = representable(np.array(max(abs(low), abs(high)) / 127.0), half)
    return Affine(scale, np.array(0, dtype=np.int8))


def asymmetric_uint8(low: float, high: float) -> Affine:
    """low .. high, widened to hold 0 exactly, onto 0 .. 255: zero point 0 where nothing is negative."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = representable(np.array((high - low) / 255.0), half=False)
    zero_point = min(255, round(-low / float(scale)))
    return Affine(scale, np.array(zero_point, dtype=np.uint8))


def weight_scales(weight: Floats, axis: int, limit: int, *, half: bool = False) -> NDArray[np.float32]:
    """One scale a channel of ``axis``: its largest |w| onto ``limit``; 1 for a channel of zeros."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=others)
    return representable(np.where(largest > 0, largest, float(limit)) / limit, half)


def scales_for_bias(scales: NDArray[np.float32], bias: Floats, input_scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight scales, raised where the bias in steps of input scale x weight scale would not fit an int32."""
    needed = np.abs(bias.astype(np.float64)) / (_BIAS_LIMIT * float(input_scale))
    return np.maximum(scales, representable(needed, half=False))


def int32_bias(bias: Floats, input_scale: NDArray[np.float32], scales: NDArray[np.float32]) -> Affine:
    """The int32 affine of a bias: scale = input scale x weight scale, as the integer kernels add it up."""
    return Affine((input_scale * scales).astype(np.float32), np.zeros(bias.shape, dtype=np.int32), axis=0)


def representable(scale: Floats, half: bool) -> NDArray[np.float32]:
    """The float32 (or FP16) number next to ``scale``; FP16, being coarse, upwards, so that nothing new saturates.

    It is never 0, which no runtime divides by: a tensor of zeros gets the smallest normal number. What is beyond FP16
    stays a float32 number, and the cast to FP16 leaves its reader in FP32.
    """
    if not half:
        return np.maximum(scale, _SMALLEST).astype(np.float32)
    scale = np.where(scale > 0, scale, _SMALLEST_HALF)
    rounded = np.minimum(scale, _LARGEST_HALF).astype(np.float16)
    with np.errstate(over="ignore"):  # of the largest, whose next is not taken
        up = np.where(rounded < scale, np.nextafter(rounded, np.float16(math.inf)), rounded)
    return np.where(scale > _LARGEST_HALF, scale, up).astype(np.float32)
