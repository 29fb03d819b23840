"""The pair of tensors that flows through a RiR, and sums in which a stream may be absent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# (residual, transient), each N,C,H,W; None for a stream without channels. A ResNet Init network carries its
# joined tensor, residual channels first, in place of the residual stream.
Streams = tuple[Tensor | None, Tensor | None]


def apply(module: nn.Module | None, x: Tensor | None) -> Tensor | None:
    """``module(x)``, or None where either is absent."""
    if module is None or x is None:
        return None
    result: Tensor = module(x)
    return result


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of the terms that are present."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


def join(streams: Streams) -> Tensor:
    """The streams as one tensor, residual channels first."""
    present = [stream for stream in streams if stream is not None]
    return present[0] if len(present) == 1 else torch.cat(present, dim=1)
