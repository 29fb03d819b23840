"""The two ends of a RiR: the stem that makes the streams, and the heads that turn them into logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rir_deploy.models.config import RiRConfig
from rir_deploy.models.rules import mlp_map_size
from rir_deploy.models.streams import Streams, apply


class ConvNormRelu(nn.Module):
    """3x3 conv, batch norm, relu at unchanged size."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N,C,H,W to N,C',H,W."""
        return functional.relu(self.norm(self.conv(x)))


class Stem(nn.Module):
    """One `ConvNormRelu` a stream, or a single one for the joined tensor of a ResNet Init network."""

    def __init__(self, config: RiRConfig) -> None:
        super().__init__()
        widths = (sum(config.stem), 0) if config.resnet_init else config.stem
        self.residual, self.transient = (
            ConvNormRelu(config.in_channels, width, bias=config.stem_bias) if width else None for width in widths
        )

    def forward(self, x: Tensor) -> Streams:
        """The first state of the streams."""
        return apply(self.residual, x), apply(self.transient, x)


class Conv1x1Head(nn.Module):
    """1x1 conv to the classes, batch norm without relu, global average pool: N,C,H,W to N,classes."""

    def __init__(self, inputs: int, config: RiRConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, config.num_classes, 1, bias=False)
        self.norm = nn.BatchNorm2d(config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        # A mean is one ONNX node under both exporters; a pooling layer comes with a flatten or a reshape.
        y: Tensor = self.norm(self.conv(x))
        return y.mean((2, 3))


class MLPHead(nn.Module):
    """3x3 stride-2 conv without padding, batch norm, relu, two linear layers: N,C,H,W to N,classes.

    The head of the pytorch-cifar100 repository; there the widths are 100 and 450 at 32x32 pixels.
    """

    def __init__(self, inputs: int, config: RiRConfig, widths: tuple[int, int]) -> None:
        super().__init__()
        channels, hidden = widths
        self.conv = nn.Conv2d(inputs, channels, 3, 2)
        self.norm = nn.BatchNorm2d(channels)
        self.hidden = nn.Linear(channels * math.prod(mlp_map_size(config)), hidden)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(hidden, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        y = torch.flatten(functional.relu(self.norm(self.conv(x))), 1)
        logits: Tensor = self.classifier(self.dropout(functional.relu(self.hidden(y))))
        return logits


def make_head(config: RiRConfig) -> nn.Module:
    """The head that ``config`` asks for, reading the joined streams of the last stage."""
    inputs = config.stages[-1].residual + config.stages[-1].transient
    if config.mlp_widths is not None:
        return MLPHead(inputs, config, config.mlp_widths)
    return Conv1x1Head(inputs, config)
