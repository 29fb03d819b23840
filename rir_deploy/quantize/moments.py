"""What rounding needs to know of the inputs of every layer: their mean and covariance over calibration."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.quantize.patches import groups_of, patches
from rir_deploy.quantize.scales import Affine
from rir_deploy.quantize.select import Weighted

Floats = NDArray[np.float64]

# Positions of a feature map looked at in every image, chosen anew for each batch.
_POSITIONS = 256


@dataclass(frozen=True)
class Moments:
    """Of the patches that a layer multiplies: ``mean`` [groups, columns], ``covariance`` [groups, columns, columns]."""

    mean: Floats
    covariance: Floats

    @property
    def uncentred(self) -> Floats:
        """E[x x^T], [groups, columns, columns]: the covariance, and what the mean adds to it."""
        return self.covariance + self.mean[:, :, None] * self.mean[:, None, :]

    def scaled(self, factors: Floats) -> Moments:
        """Of the same inputs times ``factors``, [groups, columns]."""
        return Moments(self.mean * factors, self.covariance * factors[:, :, None] * factors[:, None, :])


class MomentObserver:
    """Sums over batches, in memory that does not grow with them."""

    def __init__(self, layers: Iterable[Weighted]) -> None:
        self._layers = tuple(layers)
        self._sums: dict[str, tuple[Floats, Floats, int]] = {}
        self._batches = 0

    def add(self, tensors: Mapping[str, NDArray[np.floating]]) -> None:
        """Count one batch; ``tensors`` holds the input of every layer by name, [N, ...]."""
        for layer in self._layers:
            name = str(layer.node.outputs[0].name)
            seed = (zlib.crc32(name.encode()), self._batches)
            columns = patches(layer, tensors[str(layer.x.name)].astype(np.float32), _POSITIONS, seed)
            first = columns.sum(axis=1, dtype=np.float64)
            second = np.stack([part.T @ part for part in columns]).astype(np.float64)  # one by one: half the work
            old = self._sums.get(name)
            count = columns.shape[1]
            self._sums[name] = (
                (first, second, count) if old is None else (first + old[0], second + old[1], count + old[2])
            )
        self._batches += 1

    def moments(self) -> dict[str, Moments]:
        """By the name of the layer's output."""
        found = {}
        for name, (first, second, count) in self._sums.items():
            mean = first / count
            found[name] = Moments(mean, second / count - mean[:, :, None] * mean[:, None, :])
        return found


class ShiftObserver:
    """By how much rounding moves the mean of every channel that a layer reads: E[x^ - x].

    Args:
        affines: how the layers' inputs are rounded, by tensor.
    """

    def __init__(self, layers: Iterable[Weighted], affines: Mapping[str, Affine]) -> None:
        self._layers, self._affines = tuple(layers), dict(affines)
        self._sums: dict[str, tuple[Floats, int]] = {}

    def add(self, tensors: Mapping[str, NDArray[np.floating]]) -> None:
        """Count one batch."""
        errors = {}
        for name, affine in self._affines.items():
            x = tensors[name].astype(np.float32)
            errors[name] = _round_trip(x, affine) - x
        for layer in self._layers:
            error = errors[str(layer.x.name)]
            # A convolution's channels are axis 1, a product's the last: a matrix may be multiplied by many rows.
            channels = 1 if layer.node.op_type == "Conv" else error.ndim - 1
            total = error.sum(axis=tuple(axis for axis in range(error.ndim) if axis != channels), dtype=np.float64)
            name = str(layer.node.outputs[0].name)
            old = self._sums.get(name, (np.zeros_like(total), 0))
            self._sums[name] = total + old[0], error.size // error.shape[channels] + old[1]

    def shifts(self) -> dict[str, Floats]:
        """[channels], by the name of the layer's output."""
        return {name: total / count for name, (total, count) in self._sums.items()}


def _round_trip(x: NDArray[np.float32], affine: Affine) -> NDArray[np.float32]:
    """Quantised and dequantised; in float32, which is what the runtimes do."""
    info = np.iinfo(affine.zero_point.dtype)
    zero, scale = float(affine.zero_point), np.float32(affine.scale)
    return np.asarray(np.clip(np.rint(x / scale), info.min - zero, info.max - zero) * scale, dtype=np.float32)


def spread(layer: Weighted, shift: Floats) -> Floats:
    """A shift a channel as one a column of the patches, [groups, columns]; the zeros of padding do not move."""
    if layer.node.op_type != "Conv":
        return shift[None, :]
    sizes = layer.x.shape
    assert sizes is not None
    known = [size if isinstance(size, int) else 32 for size in list(sizes)[2:]]  # inside of a map of any size
    ones = np.ones((1, len(shift), *known), dtype=np.float32)
    inside = patches(layer, ones).mean(axis=1, dtype=np.float64)
    return np.asarray(inside * columns_of(layer, shift))


def columns_of(layer: Weighted, channels: Floats) -> Floats:
    """A number a channel of the input as one a column, [groups, columns]."""
    groups = groups_of(layer)
    columns = layer.weight_array.size // layer.weight_array.shape[layer.axis]
    return np.repeat(channels.reshape(groups, -1), columns * groups // len(channels), axis=1)
