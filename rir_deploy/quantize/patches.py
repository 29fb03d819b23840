"""Convolutions and products as matrices: weights as rows, inputs as patches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rir_deploy.quantize.select import Weighted

Floats = NDArray[np.float64]


def as_rows(found: Weighted, array: NDArray[np.number]) -> Floats:
    """The weight as [rows, columns], one row an output channel; of a grouped convolution, of its own group's inputs."""
    moved = np.moveaxis(array, found.axis, 0)
    return moved.reshape(len(moved), -1).astype(np.float64)


def from_rows(found: Weighted, rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """The inverse of `as_rows`."""
    shape = found.weight_array.shape
    moved = (shape[found.axis], *(size for axis, size in enumerate(shape) if axis != found.axis))
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, found.axis))


def groups_of(found: Weighted) -> int:
    node = found.node
    return node.attributes["group"].as_int() if "group" in node.attributes else 1


def patches(
    found: Weighted, x: NDArray[np.floating], limit: int | None = None, seed: tuple[int, ...] = ()
) -> NDArray[np.floating]:
    """What the rows of the weight are multiplied with: [groups, positions of all images, columns].

    Args:
        x: the input of the node, [N, channels, ...].
        limit: output positions to look at, chosen by ``seed`` and the same for every image; None for all. Products
            have one.
    """
    if found.node.op_type != "Conv":
        return x.reshape(1, -1, x.shape[-1])
    weight = found.weight_array
    kernel = weight.shape[2:]
    strides, dilations = (_integers(found.node, key, len(kernel), 1) for key in ("strides", "dilations"))
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_padding(found.node, x.shape[2:], reach, strides)])
    axes = tuple(range(2, 2 + len(kernel)))
    windows = sliding_window_view(padded, reach, axis=axes)
    index = [slice(None), slice(None), *(slice(None, None, step) for step in strides)]
    windows = windows[(*index, *(slice(None, None, dilation) for dilation in dilations))]
    groups, channels = groups_of(found), weight.shape[1]
    grid = windows.shape[2 : 2 + len(kernel)]
    chosen = np.arange(math.prod(grid))
    if limit is not None and limit < len(chosen):
        # RandomState's stream is frozen; a Generator's may change with numpy, and the rounding with it.
        chosen = np.sort(np.random.RandomState(np.array(seed, dtype=np.uint32)).permutation(chosen)[:limit])
    where = np.unravel_index(chosen, grid)
    everything: Any = (slice(None), slice(None), *where)
    taken = windows[everything]  # [N, channels, positions, kernel...]
    groups, channels = groups_of(found), weight.shape[1]
    split = taken.reshape(len(x), groups, channels, len(where[0]), -1)
    return np.asarray(np.moveaxis(split, (1, 0, 3), (0, 1, 2)).reshape(groups, len(x) * len(where[0]), -1))


def _padding(node: ir.Node, sizes: tuple[int, ...], reach: list[int], strides: list[int]) -> list[tuple[int, int]]:
    auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // step) - 1) * step + span - size, 0)
            for size, span, step in zip(sizes, reach, strides, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if auto == "SAME_UPPER" else [(high, low) for low, high in halves]
    pads = _integers(node, "pads", 2 * len(sizes), 0) if auto == "NOTSET" else [0] * (2 * len(sizes))
    return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))


def _integers(node: ir.Node, key: str, count: int, default: int) -> list[int]:
    return list(node.attributes[key].as_ints()) if key in node.attributes else [default] * count
