"""rir-deploy verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from rir_deploy.cli import common
from rir_deploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from rir_deploy.pipeline.self_test import Outcome, SelfTest
    from rir_deploy.pipeline.verify import Verified

# What a bundle brings along; and what speaks of a candidate only.
_BROUGHT = ("data", "recipe", "precision", "atol", "rtol", "min_agreement", "max_top1_drop", "batch")
_OF_CANDIDATE = ("factory", "simulate")
_SPELT = {"factory": "model"}


@click.command("verify", short_help="Prove that one model answers as another does.")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@common.data_option
@common.recipe_option
@common.model_option
@click.option("--precision", metavar="NAME", help="Gate to judge by: fp32, fp16, int8. Default: the candidate's own.")
@click.option("--atol", type=float, help="Largest absolute error of an output.")
@click.option("--rtol", type=float, help="Largest error of an output, as a share of the largest output.")
@click.option("--min-agreement", type=float, help="Smallest share of equal predictions (0 to 1).")
@click.option("--max-top1-drop", type=float, help="Largest loss of top-1, in points.")
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images a batch.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the runtimes.")
@click.option("--engine", "names", multiple=True, metavar="NAME", help="What to test of a bundle; repeatable.")
@click.option("--simulate", is_flag=True, help="Where an engine cannot run here, run its graph instead, and say so.")
@common.trust_option
@common.json_option
def command(
    reference: Path,
    candidate: Path | None,
    data: str | None,
    recipe: str | None,
    factory: str | None,
    precision: str | None,
    atol: float | None,
    rtol: float | None,
    min_agreement: float | None,
    max_top1_drop: float | None,
    batch: int,
    threads: int | None,
    names: tuple[str, ...],
    simulate: bool,
    trust: bool,
    as_json: bool,
) -> int:
    """Prove that CANDIDATE answers as REFERENCE does; exit with 3 where it does not.

    Either side is a checkpoint, an ONNX file or an engine folder. Without --data the recipe's own test images are
    used. The bounds come from the gate of the precision; each can be set by hand.

    A bundle as REFERENCE brings its images, answers and bounds along: alone it tests itself, every graph and engine
    that can run here; with a CANDIDATE it tests that one.
    """
    from rir_deploy.pipeline.sides import kind_of
    from rir_deploy.pipeline.verify import VerifyRequest, verify_files

    if kind_of(reference) == "bundle":
        _check_alone(candidate)
        return _self_test(reference, names, candidate, factory, threads, simulate, as_json)
    if candidate is None or names:
        raise UsageError("name a REFERENCE and a CANDIDATE; only a bundle stands alone and has an --engine to choose")
    request = VerifyRequest(
        reference,
        candidate,
        data,
        recipe,
        factory,
        precision,
        atol,
        rtol,
        min_agreement,
        max_top1_drop,
        batch,
        threads,
        simulate,
        trust,
    )
    with common.progress(as_json) as progress:
        verified = verify_files(request, progress)
    if as_json:
        common.print_json(verified.to_dict())
    else:
        print_verified(verified)
    if not verified.result.passed:
        click.echo(f"rir-deploy: parity failed: {'; '.join(verified.result.failures)}", err=True)
        return GateError.exit_code
    return 0


def _check_alone(candidate: Path | None) -> None:
    """What would have no effect is refused."""
    context = click.get_current_context()
    options = _BROUGHT if candidate is not None else _BROUGHT + _OF_CANDIDATE
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        names = ", ".join(f"--{_SPELT.get(name, name).replace('_', '-')}" for name in given)
        raise UsageError(f"{names}: a bundle brings its own images, bounds and models; leave that out")


def _self_test(
    bundle: Path,
    names: tuple[str, ...],
    candidate: Path | None,
    factory: str | None,
    threads: int | None,
    simulate: bool,
    as_json: bool,
) -> int:
    from rir_deploy.pipeline.self_test import SelfTestRequest, self_test

    if candidate is not None and names:
        raise UsageError("--engine chooses from the bundle, and a CANDIDATE is not in it; leave one out")
    with common.progress(as_json) as progress:
        tested = self_test(SelfTestRequest(bundle, names, candidate, factory, threads, simulate), progress)
    if as_json:
        common.print_json(tested.to_dict())
    else:
        print_self_test(tested)
    if not tested.passed:
        click.echo(f"rir-deploy: self-test failed: {'; '.join(tested.failures)}", err=True)
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


def print_verified(verified: Verified) -> None:
    from rir_deploy.report.console import percent, print_table

    accuracy, outputs = verified.result.accuracy, verified.result.outputs
    rows = [
        ("what", verified.reference["path"], verified.candidate["path"]),
        ("runs on", verified.reference["runs_on"], verified.candidate["runs_on"]),
        ("precision", verified.reference["precision"], verified.candidate["precision"]),
        ("top-1", percent(accuracy.reference_top1), percent(accuracy.candidate_top1)),
        ("top-5", percent(accuracy.reference_top5), percent(accuracy.candidate_top5)),
    ]
    print_table(f"verify: {accuracy.images} images of {verified.data}", ("", "reference", "candidate"), rows)
    common.say(
        f"agreement {percent(accuracy.agreement)}, largest error {outputs.max_abs_error:.3g} "
        f"({outputs.max_relative_error:.1e} of the largest output {outputs.max_abs_reference:.3g}), "
        f"mean error {outputs.mean_abs_error:.3g}, SQNR {outputs.sqnr_db:.1f} dB"
    )
    label = " by simulation: the engine itself was not run" if verified.candidate["simulation"] else ""
    common.say(f"parity {'passed' if verified.result.passed else 'FAILED'} (gate {verified.gate_name}){label}")
