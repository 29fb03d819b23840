"""Named networks of the RiR family: the paper's, its two plain ends, and a small one for 8x8 digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rir_deploy.errors import unknown_name
from rir_deploy.models.config import RiRConfig, Stage

_Preset = Mapping[str, Any]

PRESETS: Mapping[str, _Preset] = {
    # Targ et al. 2016: 18 layers + wide.
    "rir-18-wide": {
        "stem": (48, 48),
        "stages": (Stage(48, 48, 4), Stage(96, 96, 6, 2), Stage(192, 192, 6, 2)),
    },
    # The same widths with one stream: a plain CNN and a plain ResNet, the paper's comparisons.
    "cnn-18-wide": {
        "stem": (0, 96),
        "stages": (Stage(0, 96, 4), Stage(0, 192, 6, 2), Stage(0, 384, 6, 2)),
    },
    "resnet-18-wide": {
        "stem": (96, 0),
        "stages": (Stage(96, 0, 4), Stage(192, 0, 6, 2), Stage(384, 0, 6, 2)),
        "shortcut_depth": 2,
        "norm": "branch",
    },
    "rir-digits": {
        "stem": (8, 8),
        "stages": (Stage(8, 8, 2), Stage(16, 16, 2, 2)),
    },
}


def preset(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    **overrides: Any,
) -> RiRConfig:
    """The named network, with any field of `RiRConfig` overridden.

    Raises:
        UsageError: no preset of that name.
        InputError: an override is no field of RiRConfig or does not fit.
    """
    if name not in PRESETS:
        raise unknown_name("model preset", name, PRESETS)
    fixed = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    return RiRConfig.from_dict({**PRESETS[name], **fixed, **overrides})
