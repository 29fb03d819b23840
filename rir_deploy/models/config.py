"""What a RiR is: one frozen, validated, JSON-able record for the whole family.

The family (Targ, Almeida, Lyman 2016, arXiv 1603.08029) runs from a plain CNN (no residual stream) to a
plain ResNet (no transient stream), with the dual-stream RiR between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from rir_deploy.models.checks import check_choice, check_flag, check_integer, check_keys, check_pair
from rir_deploy.models.rules import check_rules

ShortcutKind = Literal["projection", "zero-pad"]
StridePosition = Literal["first", "second"]
Outer = Literal["none", "residual", "both"]
OuterPosition = Literal["before-relu", "after-relu"]
BranchScale = Literal["none", "uniform", "decreasing"]
Norm = Literal["sum", "branch"]
HeadKind = Literal["conv1x1", "mlp"]

# Far above any network worth deploying, far below what would exhaust a machine that only describes it.
MAX_WIDTH, MAX_LAYERS, MAX_STRIDE, MAX_IMAGE, MAX_CLASSES = 8192, 1000, 8, 8192, 65536


@dataclass(frozen=True)
class Stage:
    """Layers of equal width. One stream may have no channels; ``stride`` is applied once, see `RiRConfig`."""

    residual: int
    transient: int
    layers: int
    stride: int = 1

    def __post_init__(self) -> None:
        check_integer("a stage's residual width", self.residual, 0, MAX_WIDTH)
        check_integer("a stage's transient width", self.transient, 0, MAX_WIDTH)
        check_integer("a stage's layers", self.layers, 1, MAX_LAYERS)
        check_integer("a stage's stride", self.stride, 1, MAX_STRIDE)


@dataclass(frozen=True)
class RiRConfig:
    """A network of the RiR family.

    Attributes:
        num_classes: logits per image.
        in_channels: channels of the input image.
        image_size: (height, width) in pixels that the network is meant for.
        stem: (residual, transient) widths of the first 3x3 conv-BN-relu of each stream.
        stages: see `Stage`.
        stem_bias, conv_bias: whether the 3x3 convs of the stem and of the layers have a bias.
        shortcut: how a shortcut changes size: a strided 1x1 conv, or strided identity and zero channels.
            Where the size does not change it is the identity.
        shortcut_depth: layers that a shortcut spans; 1 is the paper's generalized residual block, 2 the
            classic ResNet block ("Demystifying ResNet", arXiv 1611.01186). Only the last layer of a span
            adds it.
        projection_bias, projection_norm: whether a projection has a bias, a batch norm.
        stride_position: the layer of a stage that carries its stride.
        outer: streams with an outer shortcut over each pair of layers (sources on the paper disagree: offer
            all).
        outer_position: whether the outer shortcut is added before or after the pair's last relu.
        branch_scale: lambda on residual branches ("Stable ResNet", arXiv 2010.12859): uniform 1/sqrt(L),
            decreasing 1/(sqrt(l) log(l+1)), for residual layer l = 1..L.
        norm: "sum" normalises branch + shortcut (RiR paper; lambda scales the branch before), "branch"
            normalises the branch only, then scales it and adds the shortcut (He et al. 2015).
        resnet_init: compute each block as one conv over the joined streams, its weight plus a partial
            identity that weight decay does not see (the paper's ResNet Init).
        head: "conv1x1": 1x1 conv, BN, global average pool; "mlp": 3x3 stride-2 conv, BN, relu, two linear
            layers.
        mlp_widths: (conv channels, hidden units) of the "mlp" head, None otherwise.

    Raises:
        InputError: a value is out of range, or values do not fit together (`rules.py`).
    """

    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    stem: tuple[int, int]
    stages: tuple[Stage, ...]
    stem_bias: bool = False
    conv_bias: bool = False
    shortcut: ShortcutKind = "projection"
    shortcut_depth: int = 1
    projection_bias: bool = False
    projection_norm: bool = False
    stride_position: StridePosition = "first"
    outer: Outer = "none"
    outer_position: OuterPosition = "after-relu"
    branch_scale: BranchScale = "none"
    norm: Norm = "sum"
    resnet_init: bool = False
    head: HeadKind = "conv1x1"
    mlp_widths: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        for name, known in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(known))
        for name in _FLAGS:
            check_flag(name, getattr(self, name))
        check_rules(self)

    def _check_sizes(self) -> None:
        check_integer("num_classes", self.num_classes, 1, MAX_CLASSES)
        check_integer("in_channels", self.in_channels, 1, MAX_WIDTH)
        check_pair("image_size", self.image_size, 1, MAX_IMAGE)
        check_pair("stem", self.stem, 0, MAX_WIDTH)
        check_integer("shortcut_depth", self.shortcut_depth, 1, MAX_LAYERS)
        if self.mlp_widths is not None:
            check_pair("mlp_widths", self.mlp_widths, 1, MAX_CLASSES)
        stages_given = isinstance(self.stages, tuple) and all(isinstance(s, Stage) for s in self.stages)
        check_integer("the number of stages", len(self.stages) if stages_given else 0, 1, MAX_LAYERS)
        check_integer("the number of layers", sum(stage.layers for stage in self.stages), 1, MAX_LAYERS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back to an equal record."""
        plain = {name: _as_list(value) for name, value in asdict(self).items()}
        return {**plain, "stages": [asdict(stage) for stage in self.stages]}

    @staticmethod
    def from_dict(data: object) -> RiRConfig:
        """The record that ``data`` (parsed JSON or TOML) describes; absent keys take their defaults.

        Raises:
            InputError: ``data`` is malformed, has an unknown key, or its values are out of range.
        """
        given = check_keys("a model config", data, _names(RiRConfig), _required(RiRConfig))
        values = {name: _as_tuple(value) for name, value in given.items()}
        if isinstance(values["stages"], tuple):
            values["stages"] = tuple(_as_stage(stage) for stage in values["stages"])
        return RiRConfig(**values)


_CHOICES: Mapping[str, Any] = {
    "shortcut": ShortcutKind,
    "stride_position": StridePosition,
    "outer": Outer,
    "outer_position": OuterPosition,
    "branch_scale": BranchScale,
    "norm": Norm,
    "head": HeadKind,
}
_FLAGS = ("stem_bias", "conv_bias", "projection_bias", "projection_norm", "resnet_init")


def _as_stage(value: object) -> Stage:
    if isinstance(value, Stage):
        return value
    return Stage(**check_keys("a stage", value, _names(Stage), _required(Stage)))


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _as_tuple(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _names(record: type[Any]) -> list[str]:
    return [field.name for field in fields(record)]


def _required(record: type[Any]) -> list[str]:
    return [field.name for field in fields(record) if field.default is MISSING]
