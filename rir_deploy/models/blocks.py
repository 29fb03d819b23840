"""One layer of a RiR, in its dual-stream form and in its ResNet Init form.

Both compute (Targ et al. 2016, equation 1; ``skip`` is the residual stream at the start of the span)

    r' = relu(bn_r(Wrr * r + Wtr * t + shortcut(skip)))
    t' = relu(bn_t(Wrt * r + Wtt * t))

and leave out the terms of a stream without channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rir_deploy.models.config import RiRConfig
from rir_deploy.models.plan import RESIDUAL, TRANSIENT, LayerPlan
from rir_deploy.models.shortcuts import JoinedShortcut, make_shortcut
from rir_deploy.models.streams import Streams, add, apply


class GeneralizedBlock(nn.Module):
    """The dual-stream form: a conv for each pair of streams, a batch norm for each stream."""

    def __init__(self, plan: LayerPlan, config: RiRConfig) -> None:
        super().__init__()
        (residual_in, transient_in), (residual, transient) = plan.inputs, plan.outputs
        self.joined_inputs = residual_in + transient_in
        stride, bias = plan.stride, config.conv_bias
        self.residual_to_residual = conv3x3(residual_in, residual, stride, bias)
        self.transient_to_residual = conv3x3(transient_in, residual, stride, bias)
        self.residual_to_transient = conv3x3(residual_in, transient, stride, bias)
        self.transient_to_transient = conv3x3(transient_in, transient, stride, bias)
        self.residual_norm = nn.BatchNorm2d(residual) if residual else None
        self.transient_norm = nn.BatchNorm2d(transient) if transient else None
        self.shortcut = make_shortcut(config, plan.shortcut)
        self.residual_outer = make_shortcut(config, plan.outer[RESIDUAL])
        self.transient_outer = make_shortcut(config, plan.outer[TRANSIENT])
        self.scale = plan.scale
        self.norm_after_sum = config.norm == "sum"
        self.outer_before_relu = config.outer_position == "before-relu"

    def forward(self, state: Streams, span: Streams, pair: Streams) -> Streams:
        """The next state; the shortcut reads ``span``, the outer shortcuts read ``pair``."""
        residual, transient = state
        to_residual = add(apply(self.residual_to_residual, residual), apply(self.transient_to_residual, transient))
        to_transient = add(apply(self.residual_to_transient, residual), apply(self.transient_to_transient, transient))
        return (
            self._activate(self._normalise(to_residual, span), apply(self.residual_outer, pair[RESIDUAL])),
            self._activate(apply(self.transient_norm, to_transient), apply(self.transient_outer, pair[TRANSIENT])),
        )

    def stream_convs(self) -> list[nn.Conv2d]:
        """The convs from stream to stream that this block has."""
        convs = (
            self.residual_to_residual,
            self.transient_to_residual,
            self.residual_to_transient,
            self.transient_to_transient,
        )
        return [conv for conv in convs if conv is not None]

    def _normalise(self, branch: Tensor | None, span: Streams) -> Tensor | None:
        skip = apply(self.shortcut, span[RESIDUAL])
        if self.norm_after_sum:
            return apply(self.residual_norm, add(self._scaled(branch), skip))
        return add(self._scaled(apply(self.residual_norm, branch)), skip)

    def _scaled(self, branch: Tensor | None) -> Tensor | None:
        return branch if branch is None or self.scale is None else branch * self.scale

    def _activate(self, y: Tensor | None, outer: Tensor | None) -> Tensor | None:
        if y is None:
            return None
        return activate(y, outer, before_relu=self.outer_before_relu)


class ResNetInitBlock(nn.Module):
    """The ResNet Init form: one conv over the joined tensor whose weight has a partial identity added.

    The identity is a constant buffer, so that weight decay acts on the learned part alone.
    """

    identity: Tensor

    def __init__(self, plan: LayerPlan, config: RiRConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(sum(plan.inputs), sum(plan.outputs), 3, plan.stride, padding=1, bias=config.conv_bias)
        self.norm = nn.BatchNorm2d(sum(plan.outputs))
        self.outer = _joined_outer(plan, config)
        self.outer_before_relu = config.outer_position == "before-relu"
        self.register_buffer("identity", partial_identity(plan), persistent=False)

    def forward(self, state: Streams, span: Streams, pair: Streams) -> Streams:
        """The next state, (joined, None). ``span`` is not read: its shortcut is in the weight."""
        joined, outer = state[0], apply(self.outer, pair[0])
        if joined is None:
            raise ValueError("a ResNet Init block needs the joined tensor in place of the residual stream")
        weight = self.conv.weight + self.identity
        y: Tensor = self.norm(functional.conv2d(joined, weight, self.conv.bias, self.conv.stride, self.conv.padding))
        return activate(y, outer, before_relu=self.outer_before_relu), None


def conv3x3(inputs: int, outputs: int, stride: int, bias: bool) -> nn.Conv2d | None:
    """A padded 3x3 conv, or None where either side has no channels."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias) if inputs and outputs else None


def activate(y: Tensor, outer: Tensor | None, *, before_relu: bool) -> Tensor:
    """relu, with the outer shortcut added before or after it."""
    if outer is None:
        return functional.relu(y)
    return functional.relu(y + outer) if before_relu else functional.relu(y) + outer


def partial_identity(plan: LayerPlan) -> Tensor:
    """The 3x3 kernel of a zero-padded identity on the residual channels: ones at the centre tap."""
    kernel = torch.zeros(sum(plan.outputs), sum(plan.inputs), 3, 3)
    if plan.shortcut is not None:
        channels = torch.arange(plan.shortcut.inputs)
        kernel[channels, channels, 1, 1] = 1
    return kernel


def _joined_outer(plan: LayerPlan, config: RiRConfig) -> nn.Module | None:
    residual, transient = plan.outer
    if residual is None or transient is None:
        return None
    if not residual.resizes and not transient.resizes:
        return nn.Identity()
    parts = make_shortcut(config, residual), make_shortcut(config, transient)
    if parts[0] is None or parts[1] is None:
        return None
    return JoinedShortcut(parts[0], parts[1], residual.inputs)
