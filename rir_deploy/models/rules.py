"""Which values of a RiRConfig fit together: a table of tests, each with the sentence for its failure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from rir_deploy.errors import InputError

if TYPE_CHECKING:
    from rir_deploy.models.config import RiRConfig


def check_rules(config: RiRConfig) -> None:
    """Raise InputError with the sentence of the first rule that ``config`` breaks."""
    for holds, sentence in _RULES:
        if not holds(config):
            raise InputError(sentence)


def feature_size(config: RiRConfig) -> tuple[int, int]:
    """(height, width) of the last feature map: every stride, of a padded 3x3 conv or a slice, rounds up."""
    height, width = config.image_size
    for stage in config.stages:
        height, width = -(-height // stage.stride), -(-width // stage.stride)
    return height, width


def mlp_map_size(config: RiRConfig) -> tuple[int, int]:
    """(height, width) after the unpadded 3x3 stride-2 conv of the "mlp" head; below 1 where none is left."""
    height, width = feature_size(config)
    return (height - 3) // 2 + 1, (width - 3) // 2 + 1


def _widths(config: RiRConfig) -> list[tuple[int, int]]:
    return [config.stem, *((stage.residual, stage.transient) for stage in config.stages)]


def _never_narrows(config: RiRConfig) -> bool:
    streams = (0, 1) if config.outer == "both" else (0,)
    return not any(
        0 < after[stream] < before[stream] for before, after in pairwise(_widths(config)) for stream in streams
    )


def _outer_has_streams(config: RiRConfig) -> bool:
    return all(
        residual > 0 and (transient > 0 or config.outer == "residual") for residual, transient in _widths(config)
    )


def _resnet_init_fits(config: RiRConfig) -> bool:
    return (
        config.shortcut == "zero-pad"
        and config.shortcut_depth == 1
        and config.branch_scale == "none"
        and config.norm == "sum"
        and config.outer in ("none", "both")
    )


_RULES: tuple[tuple[Callable[[RiRConfig], bool], str], ...] = (
    (
        lambda c: all(sum(widths) > 0 for widths in _widths(c)),
        "the stem and every stage need channels in at least one stream; give one a width above 0",
    ),
    (
        lambda c: all(stage.layers % c.shortcut_depth == 0 for stage in c.stages),
        "the layers of every stage must be a multiple of shortcut_depth; change one of the two",
    ),
    (
        lambda c: c.stride_position == "first" or all(s.layers > 1 for s in c.stages if s.stride > 1),
        "stride_position 'second' needs two layers in every strided stage; add a layer or use 'first'",
    ),
    (
        lambda c: c.outer == "none" or (c.shortcut_depth == 1 and all(s.layers % 2 == 0 for s in c.stages)),
        "an outer shortcut spans two layers: it needs shortcut_depth 1 and an even number of layers a stage",
    ),
    (
        lambda c: c.outer == "none" or _outer_has_streams(c),
        "an outer shortcut needs channels in its streams throughout; give them a width or use outer 'none'",
    ),
    (
        lambda c: c.shortcut == "projection" or not (c.projection_bias or c.projection_norm),
        "projection_bias and projection_norm need shortcut 'projection'; leave them out",
    ),
    (
        lambda c: c.shortcut == "projection" or _never_narrows(c),
        "a zero-pad shortcut cannot narrow a stream; use shortcut 'projection'",
    ),
    (
        lambda c: not c.resnet_init or _resnet_init_fits(c),
        "resnet_init needs shortcut 'zero-pad', shortcut_depth 1, branch_scale 'none', norm 'sum' and "
        "outer 'none' or 'both'; change these or leave resnet_init out",
    ),
    (
        lambda c: (c.head == "mlp") == (c.mlp_widths is not None),
        "mlp_widths (conv channels, hidden units) belongs to head 'mlp' and must be given with it only",
    ),
    (
        lambda c: c.head != "mlp" or min(mlp_map_size(c)) > 0,
        "head 'mlp' needs a last feature map of 3x3 at least; use larger images or head 'conv1x1'",
    ),
)
