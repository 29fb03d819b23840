"""The state dict of ``rir.py`` in the pytorch-cifar100 repository: biases everywhere, an MLP head.

Strides are not in a state dict: there, a layer with a shortcut conv has stride 2, unless it is the first.
"""

from __future__ import annotations

from rir_deploy.models.config import RiRConfig
from rir_deploy.models.layouts import ForeignModel, Shapes, Unit, conv_shape, count_up, layers_of

_STEM = {
    "stem.residual.conv": "residual_pre_conv.0",
    "stem.residual.norm": "residual_pre_conv.1",
    "stem.transient.conv": "transient_pre_conv.0",
    "stem.transient.norm": "transient_pre_conv.1",
}
_INNER = {
    "residual_to_residual": "residual_stream_conv",
    "transient_to_residual": "transient_stream_conv_across",
    "residual_to_transient": "residual_stream_conv_across",
    "transient_to_transient": "transient_stream_conv",
    "residual_norm": "residual_bn_relu.0",
    "transient_norm": "transient_bn_relu.0",
    "shortcut.conv": "short_cut.0",
}
_HEAD = {
    "head.conv": "conv1.0",
    "head.norm": "conv1.1",
    "head.hidden": "classifier.0",
    "head.classifier": "classifier.3",
}


def matches(shapes: Shapes) -> bool:
    """Whether the names are this layout's."""
    return any(name.startswith("residual_pre_conv.") for name in shapes)


def read(shapes: Shapes, image_size: tuple[int, int]) -> ForeignModel:
    """The model that ``shapes`` describe.

    Raises:
        InputError: the shapes describe no RiR.
    """
    stages, modules = layers_of(shapes, _units(shapes))
    residual, channels = conv_shape(shapes, _STEM["stem.residual.conv"])[:2]
    config = RiRConfig(
        num_classes=conv_shape(shapes, _HEAD["head.classifier"])[0],
        in_channels=channels,
        image_size=image_size,
        stem=(residual, conv_shape(shapes, _STEM["stem.transient.conv"])[0]),
        stages=stages,
        stem_bias=True,
        conv_bias=True,
        projection_bias=True,
        head="mlp",
        mlp_widths=(conv_shape(shapes, _HEAD["head.conv"])[0], conv_shape(shapes, _HEAD["head.hidden"])[0]),
    )
    return ForeignModel("pytorch-cifar100", config, {**_STEM, **modules, **_HEAD})


def _units(shapes: Shapes) -> list[Unit]:
    def prefix(block: int, layer: int) -> str:
        return f"rir{block}.resnetinit.generalized layers{layer}."

    def exists(block: int, layer: int) -> bool:
        return f"{prefix(block, layer)}residual_stream_conv.weight" in shapes

    def stride(block: int, layer: int) -> int:
        return 2 if (block, layer) != (1, 0) and f"{prefix(block, layer)}short_cut.0.weight" in shapes else 1

    return [
        Unit(prefix(block, layer), _INNER, stride(block, layer))
        for block in count_up(lambda number: exists(number, 0), 1)
        for layer in count_up(lambda number, block=block: exists(block, number), 0)  # type: ignore[misc]
    ]
