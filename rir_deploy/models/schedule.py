"""Learning rates as a function of the step alone, so that a resumed training continues exactly."""

from __future__ import annotations

import math

from rir_deploy.models.train_options import TrainOptions

_WARM_UP = 0.3
_START = 1 / 25  # of the highest rate, as in "Super-Convergence" (Smith and Topin, arXiv 1708.07120)


def learning_rate_at(options: TrainOptions, step: int, steps: int) -> float:
    """The rate of ``step`` (from 0, over the whole training) with ``steps`` in an epoch."""
    if options.schedule == "step":
        return options.learning_rate * _step_factor(options, step // steps)
    done = step / (steps * options.epochs)
    factor = _falling(done) if options.schedule == "cosine" else _one_cycle(done)
    return options.learning_rate * factor


def _step_factor(options: TrainOptions, epoch: int) -> float:
    passed = sum(epoch >= milestone for milestone in options.milestones)
    return float(options.gamma**passed)


def _falling(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(done: float) -> float:
    if done < _WARM_UP:
        return 1 - (1 - _START) * _falling(done / _WARM_UP)
    return _falling((done - _WARM_UP) / (1 - _WARM_UP))
