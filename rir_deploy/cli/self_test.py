"""verify BUNDLE: a bundle tests itself, or another against its golden images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rir_deploy.cli import common
from rir_deploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from rir_deploy.pipeline.self_test import Outcome, SelfTest, SelfTestRequest

# What a bundle brings along; and what speaks of a candidate only.
_BROUGHT = (
    "recipe",
    "precision",
    "atol",
    "rtol",
    "min_agreement",
    "max_top1_drop",
    "max_class_drop",
    "min_sqnr_db",
    "batch",
    "margin",
    "trust",
    "layers",
    "flips",
    "force",
)
_OF_CANDIDATE = ("data", "factory", "weights", "simulate")
_SPELT = {"factory": "model", "min_sqnr_db": "min_sqnr"}


def check_alone(candidate: Path | None) -> None:
    """What would have no effect is refused."""
    context = click.get_current_context()
    options = _BROUGHT if candidate is not None else _OF_CANDIDATE + _BROUGHT
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        names = ", ".join(f"--{_SPELT.get(name, name).replace('_', '-')}" for name in given)
        raise UsageError(
            f"{names}: a bundle brings its own images, bounds and models; leave that out, or use CANDIDATE and --data"
        )


def run_self_test(request: SelfTestRequest, as_json: bool) -> int:
    from rir_deploy.pipeline.self_test import self_test
    from rir_deploy.pipeline.sides import kind_of

    candidate = request.candidate
    if candidate is not None and request.names and kind_of(candidate) != "bundle":
        raise UsageError("--engine chooses from the bundle, and a CANDIDATE is not in it; leave one out")
    with common.progress(as_json) as progress:
        tested = self_test(request, progress)
    if as_json:
        common.print_json(tested.to_dict())
    else:
        print_self_test(tested)
    if not tested.passed:
        common.complain(f"self-test failed: {'; '.join(tested.failures)}")
        return GateError.exit_code
    return 0


def print_self_test(tested: SelfTest) -> None:
    from rir_deploy.report.console import print_table

    title = f"self-test of {tested.bundle}: {tested.images} images of {tested.source}"
    columns = ("name", "precision", "agrees with FP32", "max error", "as recorded", "max error", "verdict", "runs on")
    print_table(title, columns, [_cells(outcome) for outcome in tested.outcomes])
    for outcome in tested.outcomes:
        if outcome.status == "not run":
            common.say(f"not run: {outcome.name}: {outcome.reason}")
    ran = sum(outcome.status != "not run" for outcome in tested.outcomes)
    common.say(f"self-test {'passed' if tested.passed else 'FAILED'}: {ran} of {len(tested.outcomes)} ran here")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    from rir_deploy.report.console import percent

    figures: list[str] = []
    for found in (outcome.reference, outcome.recorded):
        figures += (
            ["-", "-"]
            if found is None
            else [percent(found.accuracy.agreement, 0), f"{found.outputs.max_relative_error:.1e}"]
        )
    return (outcome.name, outcome.precision, *figures, outcome.status, outcome.runs_on or "-")
