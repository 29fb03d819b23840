"""Shortcuts: the identity where sizes agree, else a projection or a strided, zero-padded identity.

Targ et al. 2016 allow both, as He et al. 2015 (options A and B).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rir_deploy.models.config import RiRConfig
from rir_deploy.models.plan import Hop


class ProjectionShortcut(nn.Module):
    """Strided 1x1 conv, optionally with bias and batch norm: N,C,H,W to N,C',ceil(H/s),ceil(W/s)."""

    def __init__(self, hop: Hop, *, bias: bool, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(hop.inputs, hop.outputs, 1, hop.stride, bias=bias)
        self.norm = nn.BatchNorm2d(hop.outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """The projection of ``x``."""
        y: Tensor = self.conv(x)
        return y if self.norm is None else self.norm(y)


class ZeroPadShortcut(nn.Module):
    """Every s-th pixel, then zero channels behind: N,C,H,W to N,C',ceil(H/s),ceil(W/s)."""

    def __init__(self, hop: Hop) -> None:
        super().__init__()
        self.stride = hop.stride
        self.extra = hop.outputs - hop.inputs

    def forward(self, x: Tensor) -> Tensor:
        """The subsampled and padded ``x``."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x


class JoinedShortcut(nn.Module):
    """An outer shortcut of each stream on the joined tensor, for a ResNet Init network."""

    def __init__(self, residual: nn.Module, transient: nn.Module, residual_inputs: int) -> None:
        super().__init__()
        self.residual, self.transient = residual, transient
        self.residual_inputs = residual_inputs

    def forward(self, x: Tensor) -> Tensor:
        """Joined shortcuts of the two parts of ``x``."""
        residual = self.residual(x[:, : self.residual_inputs])
        return torch.cat([residual, self.transient(x[:, self.residual_inputs :])], dim=1)


def make_shortcut(config: RiRConfig, hop: Hop | None) -> nn.Module | None:
    """The shortcut that ``hop`` asks for; None where there is none."""
    if hop is None:
        return None
    if not hop.resizes:
        return nn.Identity()
    if config.shortcut == "zero-pad":
        return ZeroPadShortcut(hop)
    return ProjectionShortcut(hop, bias=config.projection_bias, norm=config.projection_norm)
