from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from rir_deploy.errors import InputError, UsageError
from rir_deploy.models import PRESETS, RiRConfig, Stage, preset
from rir_deploy.models.rules import feature_size
from tests.models.networks import BASE, VARIANTS, config_of


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, rir_deploy.models, rir_deploy.models.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_json_and_back(variant: str) -> None:
    config = config_of(variant)
    assert RiRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_keys_take_their_defaults() -> None:
    data = {**BASE, "stages": [{"residual": 3, "transient": 4, "layers": 2}], "image_size": [12, 10], "stem": [3, 4]}
    config = RiRConfig.from_dict(data)
    assert config.stages == (Stage(3, 4, 2, stride=1),)
    assert config.image_size == (12, 10)
    assert (config.shortcut, config.shortcut_depth, config.outer, config.head) == ("projection", 1, "none", "conv1x1")


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config_of("plain").num_classes = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": 2.0}, "num_classes"),
        ({"in_channels": 10**9}, "in_channels"),
        ({"image_size": (0, 4)}, "image_size"),
        ({"image_size": 32}, "pair"),
        ({"stem": (1, 2, 3)}, "stem"),
        ({"stem": (0, 0)}, "at least one stream"),
        ({"stages": ()}, "number of stages"),
        ({"stages": 7}, "number of stages"),
        ({"stages": tuple(Stage(1, 1, 1000) for _ in range(2))}, "number of layers"),
        ({"stages": (Stage(3, 4, 2), Stage(0, 0, 2))}, "at least one stream"),
        ({"shortcut": "identity"}, "projection, zero-pad"),
        ({"shortcut_depth": 3}, "multiple of shortcut_depth"),
        ({"shortcut_depth": 0}, "shortcut_depth"),
        ({"conv_bias": 1}, "true or false"),
        ({"stride_position": "second", "stages": (Stage(3, 4, 1, 2),)}, "two layers"),
        ({"outer": "some"}, "none, residual, both"),
        ({"outer": "both", "shortcut_depth": 2}, "shortcut_depth 1"),
        ({"outer": "both", "stages": (Stage(3, 4, 3),)}, "even number"),
        ({"outer": "both", "stem": (3, 0), "stages": (Stage(3, 0, 2),)}, "needs channels"),
        ({"outer": "residual", "stem": (0, 3), "stages": (Stage(0, 3, 2),)}, "needs channels"),
        ({"shortcut": "zero-pad", "projection_bias": True}, "projection_bias"),
        ({"shortcut": "zero-pad", "projection_norm": True}, "projection_norm"),
        ({"shortcut": "zero-pad", "stages": (Stage(2, 4, 2),)}, "cannot narrow"),
        ({"shortcut": "zero-pad", "outer": "both", "stages": (Stage(3, 2, 2),)}, "cannot narrow"),
        ({"resnet_init": True}, "resnet_init needs shortcut 'zero-pad'"),
        ({"resnet_init": True, "shortcut": "zero-pad", "outer": "residual"}, "resnet_init"),
        ({"resnet_init": True, "shortcut": "zero-pad", "norm": "branch"}, "resnet_init"),
        ({"resnet_init": True, "shortcut": "zero-pad", "branch_scale": "uniform"}, "resnet_init"),
        ({"resnet_init": True, "shortcut": "zero-pad", "shortcut_depth": 2}, "resnet_init"),
        ({"head": "mlp"}, "mlp_widths"),
        ({"mlp_widths": (3, 3)}, "mlp_widths"),
        ({"head": "mlp", "mlp_widths": (0, 3)}, "mlp_widths"),
        ({"head": "mlp", "mlp_widths": (3, 3), "image_size": (12, 4)}, "3x3"),
    ],
)
def test_a_bad_value_is_one_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        RiRConfig(**{**BASE, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["residual", "transient", "layers", "stride"])
@pytest.mark.parametrize("value", [-1, 10**7, 1.5, None])
def test_a_bad_stage(field: str, value: object) -> None:
    good = {"residual": 1, "transient": 1, "layers": 1, "stride": 1}
    with pytest.raises(InputError, match="stage's"):
        Stage(**{**good, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "must be a table"),
        ([], "must be a table"),
        ({**BASE, "shortcutt": "zero-pad"}, "did you mean 'shortcut'"),
        ({key: value for key, value in BASE.items() if key != "stem"}, "lacks stem"),
        ({**BASE, "stages": [3]}, "a stage must be a table"),
        ({**BASE, "stages": [{"residual": 1, "transient": 1}]}, "lacks layers"),
        ({**BASE, "stages": [{"residual": 1, "transient": 1, "layers": 1, "width": 3}]}, "unknown key in a stage"),
        ({**BASE, "stages": "wide"}, "number of stages"),
        ({**BASE, "num_classes": {}}, "num_classes"),
        ({**BASE, "norm": []}, "norm"),
    ],
)
def test_malformed_data(data: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RiRConfig.from_dict(data)


def test_feature_size_rounds_up() -> None:
    config = RiRConfig(**{**BASE, "image_size": (9, 7), "stages": (Stage(1, 1, 1, 2), Stage(1, 1, 1, 3))})
    assert feature_size(config) == (2, 2)  # 9 -> 5 -> 2, 7 -> 4 -> 2


def test_presets_take_overrides() -> None:
    config = preset("rir-digits", num_classes=4, in_channels=1, image_size=(8, 8), shortcut="zero-pad")
    assert (config.num_classes, config.in_channels, config.image_size) == (4, 1, (8, 8))
    assert config.shortcut == "zero-pad"
    assert config.stages == (Stage(8, 8, 2), Stage(16, 16, 2, 2))


def test_plain_ends_have_the_widths_of_both_streams() -> None:
    both, cnn, resnet = (preset(name) for name in ("rir-18-wide", "cnn-18-wide", "resnet-18-wide"))
    joined = [(stage.residual + stage.transient, stage.layers, stage.stride) for stage in both.stages]
    assert joined == [(96, 4, 1), (192, 6, 2), (384, 6, 2)]
    assert [(stage.transient, stage.layers, stage.stride) for stage in cnn.stages] == joined
    assert [(stage.residual, stage.layers, stage.stride) for stage in resnet.stages] == joined
    assert {stage.residual for stage in cnn.stages} == {stage.transient for stage in resnet.stages} == {0}


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="did you mean 'rir-18-wide'") as caught:
        preset("rir-18-wid")
    assert all(name in str(caught.value) for name in PRESETS)


def test_unknown_override() -> None:
    with pytest.raises(InputError, match="did you mean 'outer'"):
        preset("rir-digits", outter="both")
