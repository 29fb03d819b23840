from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rir_deploy.models import RiRConfig, Stage, preset
from rir_deploy.models.rir import RiR, count_parameters
from tests.models.networks import BASE, VARIANTS, Reference, config_of, images, network

DUAL = [name for name in VARIANTS if not name.startswith("resnet-init")]


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("rir-18-wide", {}, 9_492_980),
        ("rir-18-wide", {"shortcut": "zero-pad"}, 9_469_940),
        ("rir-18-wide", {"num_classes": 100}, 9_527_720),
        # By hand: stem 27*96 + 192; convs 9*(4*96*96 + 96*192 + 5*192*192 + 192*384 + 5*384*384), two numbers a
        # channel of batch norm (4*96 + 6*192 + 6*384), head 3840 + 20. The dual stream has the same joined.
        ("cnn-18-wide", {}, 9_469_940),
        ("rir-18-wide", {"shortcut": "zero-pad", "resnet_init": True}, 9_469_940),
        ("resnet-18-wide", {"shortcut": "zero-pad"}, 9_469_940),
        ("resnet-18-wide", {}, 9_469_940 + 96 * 192 + 192 * 384),
    ],
)
def test_parameter_counts(name: str, overrides: dict[str, object], expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(RiR(preset(name, **overrides))) == expected


def test_all_presets_of_eighteen_layers_have_eighteen() -> None:
    with torch.device("meta"):
        model = RiR(preset("cnn-18-wide"))
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == 18


@pytest.mark.parametrize("variant", DUAL)
def test_network_equals_the_equations(variant: str) -> None:
    config = config_of(variant)
    model = network(config).double()
    x = images(config).double()
    with torch.no_grad():
        found, expected = model(x), Reference(config, model.state_dict())(x)
    assert found.shape == (3, config.num_classes)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@st.composite
def configs(draw: st.DrawFn) -> RiRConfig:
    """Valid configs, built so that none has to be thrown away; strides can be told from sizes of 9 pixels and more."""
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    depth, position, shortcut = pick(1, 2), pick("first", "second"), pick("projection", "zero-pad")
    outer = pick("none", "residual", "both") if depth == 1 else "none"
    streams = pick((1, 1), (1, 1), (1, 0), (0, 1)) if outer == "none" else (1, 1)
    stages = draw(st.integers(1, 3))
    widths = [tuple(used * draw(st.integers(1, 4)) for used in streams) for _ in range(stages + 1)]
    if shortcut == "zero-pad":
        widths = list(zip(*(sorted(stream) for stream in zip(*widths, strict=True)), strict=True))
    unit = 1 if (depth, position, outer) == (1, "first", "none") else 2
    return RiRConfig(
        num_classes=draw(st.integers(1, 3)),
        in_channels=draw(st.integers(1, 3)),
        image_size=(draw(st.integers(9, 15)), draw(st.integers(9, 15))),
        stem=widths[0],
        stages=tuple(Stage(*width, unit * pick(1, 2), pick(1, 2)) for width in widths[1:]),
        stem_bias=draw(st.booleans()),
        conv_bias=draw(st.booleans()),
        shortcut=shortcut,
        shortcut_depth=depth,
        projection_bias=shortcut == "projection" and draw(st.booleans()),
        projection_norm=shortcut == "projection" and draw(st.booleans()),
        stride_position=position,
        outer=outer,
        outer_position=pick("before-relu", "after-relu"),
        branch_scale=pick("none", "uniform", "decreasing"),
        norm=pick("sum", "branch"),
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(configs())
def test_any_valid_config_equals_the_equations(config: RiRConfig) -> None:
    model = network(config).double()
    x = images(config, 2).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), Reference(config, model.state_dict())(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "mlp"])
def test_an_image_of_one_pixel(variant: str) -> None:
    config = dataclasses.replace(config_of(variant), image_size=(1, 1))
    assert network(config)(images(config)).shape == (3, 5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(variant: str) -> None:
    config = config_of(variant)
    model = network(config).train()
    model(images(config, 4)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_he_initialisation_has_the_fan_in_of_the_joined_conv() -> None:
    torch.manual_seed(0)
    model = RiR(RiRConfig(**{**BASE, "stem": (20, 40), "stages": (Stage(50, 30, 1),), "conv_bias": True}))
    state = model.state_dict()
    for name in ("residual_to_residual", "transient_to_residual", "residual_to_transient", "transient_to_transient"):
        weight = state[f"layers.0.{name}.weight"]
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * 60)), rel=0.05)
        assert not state[f"layers.0.{name}.bias"].any()
    assert float(state["head.conv.weight"].std()) == pytest.approx(math.sqrt(2 / 80), rel=0.1)


def test_dropout_acts_in_training_only() -> None:
    config = config_of("mlp")
    model, x = network(config), images(config)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))
