"""Whether tensors are the same data, or hold the same values."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def view_of(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors have in common that are the same data."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def same_values(pairs: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether the tensors of each pair are equal, whatever float types they are stored as.

    Pairs of the same data are compared once; what is not plain and dense counts as different.
    """
    seen: set[tuple[object, ...]] = set()
    for left, right in pairs:
        if not (is_plain(left) and is_plain(right)):
            return False
        both = (view_of(left), view_of(right))
        if both not in seen and both[0] != both[1] and not torch.equal(left.to(torch.float64), right.to(torch.float64)):
            return False
        seen.add(both)
    return True


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, on the CPU and not quantised."""
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
