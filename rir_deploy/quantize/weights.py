"""Rounded weights: what a quantised layer computes with, apart from its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.graph.prepare import label
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.scales import Affine, scales_for_bias, weight_scales
from rir_deploy.quantize.select import Weighted

Rounding = Literal["gptq", "mse", "nearest"]


@dataclass(frozen=True)
class RoundedWeight:
    """Weight and bias of one layer; row r of the weight is ``integers[r] * scale[r]``.

    Attributes:
        integers: int8, of the weight's own shape.
        scale: float32, [rows].
        bias: float32, [rows]; None where the layer has none.
        wide: [rows], where the weight has fewer bits than 8: the column of a row that has 8 all the same.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    wide: NDArray[np.int64] | None = None


def round_weight(found: Weighted, x: Affine, options: QuantizeOptions) -> RoundedWeight:
    """To the nearest integer, the largest of every row on the largest integer; the bias as it is."""
    scale = row_scales(found, x, options)
    affine = Affine(scale, np.zeros(scale.shape, dtype=np.int8), found.axis)
    return RoundedWeight(affine.quantize(found.weight_array).astype(np.int8), scale, found.bias_array)


def check_weight(found: Weighted, weight: RoundedWeight, options: QuantizeOptions) -> None:
    """Refuse what cannot be the weight of that layer: it may come out of a file.

    Raises:
        InputError: another shape, integers or columns out of range, steps that are none, a bias that is not finite.
    """
    if not (_shapes_fit(found, weight) and _numbers_fit(found, weight, options.weight_limit)):
        raise InputError(f"the rounded weights are not those of the layer '{label(found.node)}'; calibrate again")


def _shapes_fit(found: Weighted, weight: RoundedWeight) -> bool:
    rows = found.weight_array.shape[found.axis]
    if weight.bias is not None and found.node.op_type == "MatMul":
        return False
    vectors = [part for part in (weight.scale, weight.bias, weight.wide) if part is not None]
    return weight.integers.shape == found.weight_array.shape and all(part.shape == (rows,) for part in vectors)


def _numbers_fit(found: Weighted, weight: RoundedWeight, limit: int) -> bool:
    rows = np.moveaxis(weight.integers, found.axis, 0).reshape(len(weight.scale), -1).astype(np.int64)
    if np.abs(rows).max(initial=0) > limit or not (np.isfinite(weight.scale) & (weight.scale > 0)).all():
        return False
    if weight.bias is not None and not np.isfinite(weight.bias).all():
        return False
    if weight.wide is None:
        return True
    if not ((weight.wide >= 0) & (weight.wide < rows.shape[1])).all():
        return False
    rows[np.arange(len(rows)), weight.wide] = 0
    return bool(((rows >= -8) & (rows <= 7)).all())


def row_scales(found: Weighted, x: Affine, options: QuantizeOptions) -> NDArray[np.float32]:
    """Steps a row at which no weight saturates and, for CPUs, the bias fits its int32."""
    half = options.rest == "fp16"
    scale = weight_scales(found.weight_array, found.axis, options.weight_limit, half=half)
    bias = found.bias_array
    return scale if bias is None or options.flavour != "cpu" else scales_for_bias(scale, bias, x.scale)
