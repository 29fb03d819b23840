"""All layers' weights rounded, given what calibration knows of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.quantize.moments import Moments, spread
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.patches import as_rows, from_rows
from rir_deploy.quantize.rounding import Bounds, choose_nearest, choose_second_order, round_nearest
from rir_deploy.quantize.scales import Affine, representable
from rir_deploy.quantize.select import Weighted
from rir_deploy.quantize.weights import RoundedWeight, Rounding, row_scales

Floats = NDArray[np.float64]

# Shares of the step at which nothing saturates that are tried for every row: few bits gain by more saturation.
_SHARES = {8: np.linspace(1.0, 0.8, 5), 4: np.linspace(1.0, 0.4, 13), 3: np.linspace(1.0, 0.3, 15)}


@dataclass(frozen=True)
class RoundedLayer:
    """A rounded weight that waits for its bias: `finish` adds the correction of a method's ranges."""

    layer: Weighted
    weight: RoundedWeight
    moments: Moments

    def finish(self, shift: Floats | None) -> RoundedWeight:
        """The weight with its bias corrected for the mean that rounding moves.

        y = W x + b, and what is computed is W^ x^ + b^: the means agree for b^ = b + W E[x] - W^ E[x^]. A MatMul has no
        bias to correct (where one is added behind it, it has become a Gemm: `absorb`).

        Args:
            shift: E[x^ - x], [channels]; None leaves the bias alone.
        """
        if shift is None or self.layer.node.op_type == "MatMul":
            return self.weight
        groups = len(self.moments.mean)
        true = as_rows(self.layer, self.layer.weight_array).reshape(groups, -1, self.moments.mean.shape[1])
        rounded = as_rows(self.layer, self.weight.integers) * self.weight.scale.astype(np.float64)[:, None]
        rounded = rounded.reshape(true.shape)
        moved = self.moments.mean + spread(self.layer, shift)
        correction = np.einsum("grc,gc->gr", true, self.moments.mean) - np.einsum("grc,gc->gr", rounded, moved)
        bias = self.layer.bias_array
        corrected = correction.ravel() + (0.0 if bias is None else bias.astype(np.float64))
        return RoundedWeight(self.weight.integers, self.weight.scale, corrected.astype(np.float32), self.weight.wide)


def round_layers(
    layers: Iterable[tuple[Weighted, Affine, int]],
    moments: Mapping[str, Moments],
    rounding: Rounding,
    options: QuantizeOptions,
    *,
    corrected: bool = True,
) -> dict[str, RoundedLayer]:
    """Every layer by the name of its output.

    Args:
        layers: with what rounds the input, and the bits of the weight.
        moments: of the inputs, by the name of the layer's output.
        corrected: whether biases will be: an error of the mean then costs nothing, and else as much as any other.
    """
    found = {}
    for layer, x, bits in layers:
        name = str(layer.node.outputs[0].name)
        centred = corrected and layer.node.op_type != "MatMul"
        second = moments[name].covariance if centred else moments[name].uncentred
        weight = _round(layer, x, bits, second, rounding, options)
        found[name] = RoundedLayer(layer, weight, moments[name])
    return found


def _round(
    layer: Weighted, x: Affine, bits: int, moments: Floats, rounding: Rounding, options: QuantizeOptions
) -> RoundedWeight:
    """``moments``: H of `rounding` for every group, [groups, columns, columns]."""
    matrix = as_rows(layer, layer.weight_array)
    largest = row_scales(layer, x, options)
    wide: NDArray[np.int64] | None = None
    if bits == 8:
        bounds = Bounds.uniform(matrix.shape, options.weight_limit)
        tried = [representable(largest * share, half=options.rest == "fp16") for share in _SHARES[8]]
    else:
        wide = np.abs(matrix).argmax(axis=1)
        bounds, tried = _narrow(matrix, wide, bits, options.weight_limit)
        tried = [np.maximum(steps, largest) for steps in tried]
    if rounding == "nearest":
        tried = tried[:1]
    integers, steps = [], []
    for group, rows in enumerate(np.split(np.arange(len(matrix)), len(moments))):
        part = Bounds(bounds.low[rows], bounds.high[rows])
        choices = [steps_tried[rows] for steps_tried in tried]
        if rounding == "gptq":
            found, chosen = choose_second_order(matrix[rows], choices, part, moments[group])
        elif rounding == "mse":
            found, chosen = choose_nearest(matrix[rows], choices, part, np.diag(moments[group]))
        else:
            found, chosen = round_nearest(matrix[rows], choices[0], part), choices[0]
        integers.append(found)
        steps.append(chosen)
    rounded = from_rows(layer, np.concatenate(integers).astype(np.int8))
    return RoundedWeight(rounded.astype(np.int8), np.concatenate(steps), layer.bias_array, wide)


def _narrow(
    matrix: Floats, wide: NDArray[np.int64], bits: int, most_wide: int
) -> tuple[Bounds, list[NDArray[np.float32]]]:
    """Bounds of few bits but for one tap a row, up to ``most_wide``, and the steps to try.

    After a fold one tap of a row holds an identity, 13 to 38 standard deviations out. Kept to 8 bits in units of the
    row's own step it costs the others nothing; a step that divides it makes it exact.
    """
    rows = np.arange(len(matrix))
    limit = 2.0 ** (bits - 1)
    low, high = np.full(matrix.shape, -limit), np.full(matrix.shape, limit - 1)
    low[rows, wide], high[rows, wide] = -most_wide, most_wide
    tap = np.abs(matrix[rows, wide])
    rest = np.abs(matrix)
    rest[rows, wide] = 0.0
    most = rest.max(axis=1)
    tried = []
    for share in _SHARES[bits]:
        steps = most * share / (limit - 1)
        steps = np.where(steps > 0, steps, tap / most_wide)
        turns = np.clip(np.rint(tap / np.where(steps > 0, steps, 1.0)), 1.0, most_wide)
        steps = np.where(tap > 0, tap / turns, 1.0)
        tried.append(representable(steps, half=False))
    return Bounds(low, high), tried
