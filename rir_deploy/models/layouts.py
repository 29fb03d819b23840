"""State dicts of other RiR implementations, recognised by their names and read as a RiRConfig.

A layout yields the config that its shapes imply and, for each of our modules, the name of theirs; nothing
is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rir_deploy.errors import InputError
from rir_deploy.models.config import RiRConfig, Stage

Layout = Literal["rir-deploy", "pytorchcv", "pytorch-cifar100"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ForeignModel:
    """What a foreign state dict describes: our config, and our module names to theirs."""

    layout: Layout
    config: RiRConfig
    modules: dict[str, str]

    def foreign_name(self, name: str) -> str:
        """Their name of our tensor ``name``: the module's, with the same last part."""
        module, _, leaf = name.rpartition(".")
        return f"{self.modules[module]}.{leaf}"


@dataclass(frozen=True)
class Unit:
    """One foreign layer: its name, the names inside it, and the stride that its place implies."""

    prefix: str
    inner: Mapping[str, str]
    stride: int


def conv_shape(shapes: Shapes, module: str) -> tuple[int, ...]:
    """(outputs, inputs, kh, kw) of a conv, or (outputs, inputs) of a linear layer.

    Raises:
        InputError: it is missing or its rank is not that of a weight.
    """
    shape = shapes.get(f"{module}.weight", ())
    if len(shape) not in (2, 4):
        raise InputError(f"{module}.weight of the checkpoint is missing or no weight; save the state dict again")
    return shape


def layers_of(shapes: Shapes, units: list[Unit]) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """Units as stages of equal width and stride, and the module names of their layers."""
    stages: list[Stage] = []
    modules: dict[str, str] = {}
    for index, unit in enumerate(units):
        residual = conv_shape(shapes, unit.prefix + unit.inner["residual_to_residual"])[0]
        transient = conv_shape(shapes, unit.prefix + unit.inner["transient_to_transient"])[0]
        last = stages[-1] if stages else None
        if last and unit.stride == 1 and (residual, transient) == (last.residual, last.transient):
            stages[-1] = Stage(residual, transient, last.layers + 1, last.stride)
        else:
            stages.append(Stage(residual, transient, 1, unit.stride))
        modules |= {f"layers.{index}.{ours}": unit.prefix + theirs for ours, theirs in unit.inner.items()}
    return tuple(stages), modules


def count_up(exists: Callable[[int], bool], start: int) -> range:
    """The numbers from ``start`` on, as far as ``exists`` holds."""
    stop = start
    while exists(stop):
        stop += 1
    return range(start, stop)
