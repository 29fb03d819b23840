"""rir-deploy verify"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, OutputPath, check_outputs
from rir_deploy.cli.self_test import check_alone, run_self_test
from rir_deploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from rir_deploy.pipeline.stages import StagesRequest
    from rir_deploy.pipeline.verify import Verified


def _bounds(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Parse 1e-4 or logits=1e-4; "" stands for every output."""
    bounds: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"'{value}' is not a bound; write for example 1e-4 or logits=1e-4") from None
    return bounds


@click.command("verify", cls=Command, short_help="Prove that one model answers as another does.")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@common.data_option
@common.recipe_option
@common.model_option
@common.weights_option
@click.option("--precision", metavar="NAME", help="Gate to judge by: fp32, fp16, int8. Default: the candidate's own.")
@click.option("--atol", multiple=True, callback=_bounds, metavar="[OUTPUT=]X", help="Largest error of an output.")
@click.option(
    "--rtol", multiple=True, callback=_bounds, metavar="[OUTPUT=]X", help="The same, as a share of the largest output."
)
@click.option("--min-agreement", type=float, help="Smallest share of equal predictions (0 to 1).")
@click.option("--max-top1-drop", type=float, help="Largest loss of top-1 as measured, in points.")
@click.option("--max-class-drop", type=float, help="Largest loss of a class's recall that is no chance, in points.")
@click.option("--min-sqnr", "min_sqnr_db", type=float, metavar="DB", help="Smallest SQNR of the outputs (INT8).")
@click.option("--margin", type=float, metavar="POINTS", help="Demand proof (95 %) that the true loss of top-1 is less.")
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images a batch.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the runtimes.")
@click.option("--engine", "names", multiple=True, metavar="NAME", help="What to test of a bundle; repeatable.")
@click.option("--simulate", is_flag=True, help="Where an engine cannot run here, run its graph instead, and say so.")
@click.option("--layers", is_flag=True, help="Compare layer by layer, and name the first that is wrong.")
@click.option("--flips", type=OutputPath(), metavar="FILE", help="Write every image that flipped, as JSON.")
@common.trust_option
@common.force_option
@common.json_option
def command(
    reference: Path,
    candidate: Path | None,
    data: str | None,
    recipe: str | None,
    factory: str | None,
    weights: str | None,
    precision: str | None,
    atol: dict[str, float],
    rtol: dict[str, float],
    min_agreement: float | None,
    max_top1_drop: float | None,
    max_class_drop: float | None,
    min_sqnr_db: float | None,
    margin: float | None,
    batch: int,
    threads: int | None,
    names: tuple[str, ...],
    simulate: bool,
    trust: bool,
    layers: bool,
    flips: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Prove that CANDIDATE answers as REFERENCE does; exit with 3 where it does not.

    Either side is a checkpoint, an ONNX file, an engine folder or a bundle. Without --data the recipe's own test images
    are used. The bounds come from the gate of the precision; each can be set by hand.

    A bundle as REFERENCE brings its images, answers and bounds along: alone it tests itself, every graph and engine
    that can run here; with a CANDIDATE it tests that one; with --data as well it stands for its FP32 graph. Of a bundle
    as CANDIDATE, --engine says which graph or engine is meant.

    The folder of a run, alone or as the CANDIDATE for the checkpoint it was made from, is gone through stage by stage:
    PyTorch, traced, folded, FP16 or Q/DQ, engine.
    """
    from rir_deploy.cli.verified import print_verified
    from rir_deploy.pipeline.self_test import SelfTestRequest
    from rir_deploy.pipeline.sides import kind_of
    from rir_deploy.pipeline.stages import StagesRequest, is_run
    from rir_deploy.pipeline.verify import VerifyRequest, verify_files

    run, checkpoint = (reference, None) if candidate is None else (candidate, reference)
    if is_run(run):
        own = (recipe, precision, *atol, *rtol, min_agreement, max_top1_drop, margin, flips, *names)
        own += (max_class_drop, min_sqnr_db)
        if layers or simulate or force or trust or any(value is not None for value in own):
            raise UsageError(
                "a run brings its own recipe and bounds: --data, --batch, --threads, --model and --weights go with it"
            )
        return _stages(StagesRequest(run, checkpoint, data, factory, batch, threads, weights), as_json)
    if kind_of(reference) == "bundle" and (data is None or candidate is None):
        check_alone(candidate)
        alone = SelfTestRequest(reference, names, candidate, factory, threads, simulate, weights)
        return run_self_test(alone, as_json)
    if candidate is None or (names and kind_of(candidate) != "bundle"):
        raise UsageError(
            "name a REFERENCE and a CANDIDATE; only a bundle or a run stands alone, and --engine is of a bundle"
        )
    if force and flips is None:
        raise UsageError("--force replaces the file of --flips; name one, or leave --force out")
    check_outputs(flips, force=force)
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
        margin,
        layers=layers,
        names=names,
        weights=weights,
        max_class_drop=max_class_drop,
        min_sqnr_db=min_sqnr_db,
    )
    with common.progress(as_json) as progress:
        verified = verify_files(request, progress)
    if flips is not None:
        _write_flips(verified, flips, force)
    if as_json:
        common.print_json(verified.to_dict())
    else:
        print_verified(verified)
    if not verified.passed:
        common.complain(f"parity failed: {'; '.join(verified.failures)}")
        return GateError.exit_code
    return 0


def _stages(request: StagesRequest, as_json: bool) -> int:
    from rir_deploy.cli.verified import print_stages
    from rir_deploy.pipeline.stages import verify_stages

    with common.progress(as_json) as progress:
        stages = verify_stages(request, progress)
    if as_json:
        common.print_json(stages.to_dict())
    else:
        print_stages(stages)
    if stages.failures:
        common.complain(f"parity failed: {'; '.join(stages.failures)}")
        return GateError.exit_code
    return 0


def _write_flips(verified: Verified, path: Path, force: bool) -> None:
    from rir_deploy.artifacts import atomic_file

    with atomic_file(path, force=force) as temporary:
        temporary.write_text(json.dumps(verified.flips(), indent=1) + "\n", encoding="utf-8")
