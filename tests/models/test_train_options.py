from __future__ import annotations

import json

import pytest

from rir_deploy.errors import InputError
from rir_deploy.models.schedule import learning_rate_at
from rir_deploy.models.train_options import TrainOptions


def test_the_defaults_are_the_recipe_of_the_paper() -> None:
    options = TrainOptions()
    assert (options.epochs, options.batch_size, options.momentum, options.weight_decay) == (82, 500, 0.9, 1e-4)
    assert (options.schedule, options.milestones, options.gamma) == ("step", (42, 62), 0.1)
    assert (options.crop_padding, options.flip, options.nesterov, options.label_smoothing) == (4, True, False, 0)


def test_json_and_back() -> None:
    options = TrainOptions(epochs=3, milestones=(1, 2), schedule="cosine", device="cuda:1", seed=2**62)
    assert TrainOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    assert TrainOptions.from_dict({}) == TrainOptions()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ([], "must be a table"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.0}, "epochs"),
        ({"batch_size": True}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "0.1"}, "learning_rate"),
        ({"momentum": 1}, "momentum"),
        ({"momentum": 0, "nesterov": True}, "nesterov needs"),
        ({"nesterov": "yes"}, "nesterov"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"schedule": "linear"}, "step, cosine, onecycle"),
        ({"milestones": 42}, "milestones"),
        ({"milestones": [0]}, "milestone"),
        ({"gamma": 0}, "gamma"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"flip": 1}, "flip"),
        ({"seed": -1}, "seed"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"precision": "fp16"}, "auto, fp32, bf16"),
        ({"device": "gpu"}, "cuda:N"),
        ({"device": 0}, "cuda:N"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_options(data: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainOptions.from_dict(data)


def test_step_divides_after_each_milestone() -> None:
    options = TrainOptions(learning_rate=0.5)
    rates = [learning_rate_at(options, epoch * 10 + step, 10) for epoch, step in ((0, 0), (41, 9), (42, 0), (61, 9))]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert learning_rate_at(options, 620, 10) == pytest.approx(0.005)


def test_cosine_falls_to_zero() -> None:
    options = TrainOptions(epochs=4, learning_rate=0.2, schedule="cosine")
    rates = [learning_rate_at(options, step, 2) for step in (0, 2, 4, 6)]
    assert rates == pytest.approx([0.2, 0.2 * 0.853553, 0.1, 0.2 * 0.146447], rel=1e-5)


def test_one_cycle_rises_then_falls() -> None:
    options = TrainOptions(epochs=10, learning_rate=1, schedule="onecycle")
    rates = [learning_rate_at(options, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[15] == pytest.approx(0.52)  # half way up: the mean of 1/25 and 1
    assert rates[30] == max(rates) == pytest.approx(1)
    assert rates[65] == pytest.approx(0.5)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] < 0.001
