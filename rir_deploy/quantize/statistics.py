"""What equalisation needs to know: of every channel of a tensor, the largest value and the energy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.quantize.channels import ChannelGroup, channel_groups
from rir_deploy.quantize.equalize import rows_of
from rir_deploy.quantize.exponents import ChannelStatistics, Reading, choose_exponents


class ChannelObserver:
    """Sums over batches, for tensors of two axes and more; channels are axis 1."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], int]] = {}

    def add(self, tensors: Mapping[str, NDArray[np.floating]]) -> None:
        for name, x in tensors.items():
            if x.ndim < 2 or x.size == 0:
                continue
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            largest = np.abs(x).max(axis=axes).astype(np.float64)
            energy, count = np.square(x).sum(axis=axes, dtype=np.float64), x.size // x.shape[1]
            old = self._sums.get(name, (largest, np.zeros_like(energy), 0))
            self._sums[name] = np.maximum(largest, old[0]), energy + old[1], count + old[2]

    def statistics(self) -> dict[str, ChannelStatistics]:
        return {name: ChannelStatistics(most, energy / count) for name, (most, energy, count) in self._sums.items()}


def find_exponents(
    graph: ir.Graph, statistics: Mapping[str, ChannelStatistics], levels: int
) -> dict[str, tuple[int, ...]]:
    """The powers of two for every group of channels that gains by them, as `equalize` takes them.

    Args:
        statistics: of the tensors that convolutions and products read, and of what they give.
        levels: steps that an activation is rounded to, 127 or 255.
    """
    found = {}
    for group in channel_groups(graph):
        read = [value for value in group.values if any(use.node in group.readers for use in value.uses())]
        known = [statistics[str(value.name)] for value in read]
        together = ChannelStatistics(
            np.maximum.reduce([one.max_abs for one in known]), np.maximum.reduce([one.mean_square for one in known])
        )
        readings = [_reading(node, group, statistics) for node in group.readers]
        exponents = choose_exponents(together, readings, levels)
        if exponents.any():
            found[str(group.values[0].name)] = tuple(int(exponent) for exponent in exponents)
    return found


def _reading(node: ir.Node, group: ChannelGroup, statistics: Mapping[str, ChannelStatistics]) -> Reading:
    """Squares of a node's weights, [rows, channels of the group]: zero where a row does not read a channel."""
    weight = rows_of(node)  # [rows, columns, kernel]
    squares = weight**2
    groups = group.size // weight.shape[1]
    total = np.zeros((len(weight), group.size))
    most = np.zeros_like(total)
    rows = len(weight) // groups
    for index in range(groups):
        part = slice(index * rows, (index + 1) * rows)
        columns = slice(index * weight.shape[1], (index + 1) * weight.shape[1])
        total[part, columns], most[part, columns] = squares[part].sum(axis=2), squares[part].max(axis=2)
    energy = float(statistics[str(node.outputs[0].name)].mean_square.sum())
    return Reading(total, most, weight.shape[2], 1.0 / max(energy, 1e-30))
