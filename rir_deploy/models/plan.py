"""A RiRConfig laid out layer by layer: what each layer reads, writes, adds and by how much it scales.

Shared by everything that needs the structure without the weights; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rir_deploy.models.config import BranchScale, RiRConfig

RESIDUAL, TRANSIENT = 0, 1


@dataclass(frozen=True)
class Hop:
    """What a shortcut over one or more layers must do to a stream: widths in and out, total stride."""

    inputs: int
    outputs: int
    stride: int

    @property
    def resizes(self) -> bool:
        """Whether it is anything but the identity."""
        return self.inputs != self.outputs or self.stride != 1


@dataclass(frozen=True)
class LayerPlan:
    """One layer.

    Attributes:
        inputs, outputs: (residual, transient) widths.
        stride: of its convs.
        opens_span, opens_pair: whether a shortcut, an outer shortcut starts at its input.
        shortcut: of the residual stream, where this layer closes a span; None where it adds none.
        outer: (residual, transient) outer shortcuts, where this layer closes a pair.
        scale: lambda on the residual branch; None where there is none.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    stride: int
    opens_span: bool
    opens_pair: bool
    shortcut: Hop | None
    outer: tuple[Hop | None, Hop | None]
    scale: float | None


def plan_layers(config: RiRConfig) -> tuple[LayerPlan, ...]:
    """The layers of ``config``, first to last."""
    steps = list(_steps(config))
    depth, outer = config.shortcut_depth, _outer_streams(config)
    shortcuts = [_hop(steps, index, depth, RESIDUAL) for index in range(len(steps))]
    total = sum(hop is not None for hop in shortcuts)
    plans, residual_layer = [], 0
    for index, (inputs, outputs, stride) in enumerate(steps):
        residual_layer += shortcuts[index] is not None
        plans.append(
            LayerPlan(
                inputs,
                outputs,
                stride,
                opens_span=index % depth == 0,
                opens_pair=index % 2 == 0,
                shortcut=shortcuts[index],
                outer=(
                    _hop(steps, index, 2, RESIDUAL) if RESIDUAL in outer else None,
                    _hop(steps, index, 2, TRANSIENT) if TRANSIENT in outer else None,
                ),
                scale=branch_scale(config.branch_scale, residual_layer, total) if shortcuts[index] else None,
            )
        )
    return tuple(plans)


def branch_scale(kind: BranchScale, number: int, total: int) -> float | None:
    """Lambda of residual layer ``number`` (from 1) of ``total``; None for no scale.

    Stable ResNet, arXiv 2010.12859: uniform 1/sqrt(L); decreasing 1/(sqrt(l) log(l + 1)).
    """
    if kind == "uniform":
        return 1 / math.sqrt(total)
    if kind == "decreasing":
        return 1 / (math.sqrt(number) * math.log(number + 1))
    return None


_Step = tuple[tuple[int, int], tuple[int, int], int]


def _steps(config: RiRConfig) -> Iterator[_Step]:
    """(input widths, output widths, stride) of every layer."""
    widths = config.stem
    strided = 0 if config.stride_position == "first" else 1
    for stage in config.stages:
        for index in range(stage.layers):
            outputs = (stage.residual, stage.transient)
            yield widths, outputs, stage.stride if index == strided else 1
            widths = outputs


def _outer_streams(config: RiRConfig) -> tuple[int, ...]:
    return {"none": (), "residual": (RESIDUAL,), "both": (RESIDUAL, TRANSIENT)}[config.outer]


def _hop(steps: list[_Step], index: int, depth: int, stream: int) -> Hop | None:
    """The shortcut of ``stream`` over the ``depth`` layers that end at ``index``, if one ends there."""
    # Every stage holds a whole number of spans (rules.py), so that counting from the first layer is enough.
    if (index + 1) % depth:
        return None
    span = steps[index + 1 - depth : index + 1]
    inputs, outputs = span[0][0][stream], span[-1][1][stream]
    if not inputs or not outputs:
        return None
    return Hop(inputs, outputs, math.prod(stride for _, _, stride in span))
