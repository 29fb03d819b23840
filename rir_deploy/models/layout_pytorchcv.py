"""The state dict of `pytorchcv`'s CIFARRiR (rir_cifar10, rir_cifar100, rir_svhn).

Named by the stream a conv *reads*: res_cross_conv feeds the transient stream, trans_cross_conv the residual
one. Strides are not in a state dict: there, the first unit of every stage but the first has stride 2.
"""

from __future__ import annotations

from rir_deploy.models.config import RiRConfig
from rir_deploy.models.layouts import ForeignModel, Shapes, Unit, conv_shape, count_up, layers_of

_STEM = {
    "stem.residual.conv": "features.init_block.res_conv.conv",
    "stem.residual.norm": "features.init_block.res_conv.bn",
    "stem.transient.conv": "features.init_block.trans_conv.conv",
    "stem.transient.norm": "features.init_block.trans_conv.bn",
}
_INNER = {
    "residual_to_residual": "res_pass_conv",
    "transient_to_residual": "trans_cross_conv",
    "residual_to_transient": "res_cross_conv",
    "transient_to_transient": "trans_pass_conv",
    "residual_norm": "res_postactiv.bn",
    "transient_norm": "trans_postactiv.bn",
    "shortcut.conv": "identity_conv",
}
_HEAD = {"head.conv": "output.final_conv.conv", "head.norm": "output.final_conv.bn"}


def matches(shapes: Shapes) -> bool:
    """Whether the names are this layout's."""
    return any(name.startswith("features.init_block.res_conv.") for name in shapes)


def read(shapes: Shapes, image_size: tuple[int, int]) -> ForeignModel:
    """The model that ``shapes`` describe. Its average pool of 8x8 is the global one for 32x32 images.

    Raises:
        InputError: the shapes describe no RiR.
    """
    stages, modules = layers_of(shapes, _units(shapes))
    residual, channels = conv_shape(shapes, _STEM["stem.residual.conv"])[:2]
    config = RiRConfig(
        num_classes=conv_shape(shapes, _HEAD["head.conv"])[0],
        in_channels=channels,
        image_size=image_size,
        stem=(residual, conv_shape(shapes, _STEM["stem.transient.conv"])[0]),
        stages=stages,
    )
    return ForeignModel("pytorchcv", config, {**_STEM, **modules, **_HEAD})


def _units(shapes: Shapes) -> list[Unit]:
    def exists(stage: int, unit: int) -> bool:
        return f"features.stage{stage}.unit{unit}.res_pass_conv.weight" in shapes

    return [
        Unit(f"features.stage{stage}.unit{unit}.", _INNER, 2 if unit == 1 and stage > 1 else 1)
        for stage in count_up(lambda number: exists(number, 1), 1)
        for unit in count_up(lambda number, stage=stage: exists(stage, number), 1)  # type: ignore[misc]
    ]
