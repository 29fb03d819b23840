from __future__ import annotations

import pytest

from rir_deploy.models import RiRConfig, Stage, preset
from rir_deploy.models.plan import Hop, branch_scale, plan_layers
from tests.models.networks import BASE


def test_first_strided_layer_carries_width_and_stride() -> None:
    plans = plan_layers(RiRConfig(**BASE))
    assert [plan.stride for plan in plans] == [1, 1, 2, 1]
    assert [plan.inputs for plan in plans] == [(3, 4), (3, 4), (3, 4), (5, 6)]
    assert [plan.shortcut for plan in plans] == [Hop(3, 3, 1), Hop(3, 3, 1), Hop(3, 5, 2), Hop(5, 5, 1)]


def test_stride_in_the_second_layer_keeps_the_width_change_in_the_first() -> None:
    plans = plan_layers(RiRConfig(**BASE, stride_position="second"))
    assert [plan.stride for plan in plans] == [1, 1, 1, 2]
    assert [plan.shortcut for plan in plans][2:] == [Hop(3, 5, 1), Hop(5, 5, 2)]


def test_a_shortcut_of_depth_two_spans_both_layers() -> None:
    plans = plan_layers(RiRConfig(**BASE, shortcut_depth=2, stride_position="second"))
    assert [plan.shortcut for plan in plans] == [None, Hop(3, 3, 1), None, Hop(3, 5, 2)]
    assert [plan.opens_span for plan in plans] == [True, False, True, False]


def test_outer_shortcuts_close_pairs() -> None:
    plans = plan_layers(RiRConfig(**BASE, outer="both"))
    assert [plan.outer for plan in plans] == [
        (None, None),
        (Hop(3, 3, 1), Hop(4, 4, 1)),
        (None, None),
        (Hop(3, 5, 2), Hop(4, 6, 2)),
    ]
    residual = plan_layers(RiRConfig(**BASE, outer="residual"))
    assert residual[3].outer == (Hop(3, 5, 2), None)


def test_a_stream_that_begins_or_ends_has_no_shortcut_there() -> None:
    stages = (Stage(0, 4, 1), Stage(3, 4, 2), Stage(0, 4, 1))
    plans = plan_layers(RiRConfig(**{**BASE, "stem": (2, 2), "stages": stages}))
    assert [plan.shortcut for plan in plans] == [None, None, Hop(3, 3, 1), None]


def test_lambdas_by_hand() -> None:
    """Stable ResNet (2010.12859): 1/sqrt(4); 1/ln 2, 1/(sqrt 2 ln 3), 1/(sqrt 3 ln 4), 1/(2 ln 5)."""
    config = preset("rir-digits", branch_scale="uniform")
    assert [plan.scale for plan in plan_layers(config)] == [0.5] * 4
    scales = [plan.scale for plan in plan_layers(preset("rir-digits", branch_scale="decreasing"))]
    assert scales == pytest.approx([1.442695, 0.643636, 0.416470, 0.310667], abs=1e-6)


def test_lambda_counts_residual_layers_only() -> None:
    deep = plan_layers(preset("rir-digits", branch_scale="uniform", shortcut_depth=2))
    assert [plan.scale for plan in deep] == [None, pytest.approx(2**-0.5), None, pytest.approx(2**-0.5)]
    plain = plan_layers(preset("cnn-18-wide", branch_scale="decreasing"))
    assert {plan.scale for plan in plain} == {None}
    assert branch_scale("none", 1, 4) is None
