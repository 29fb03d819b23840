"""rir-deploy demo"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from rir_deploy.cli import common
from rir_deploy.cli.train import training_bar
from rir_deploy.errors import GateError


@click.command("demo", short_help="Do the whole job on data that needs no download.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the results. Default: a new temporary folder."
)
@common.json_option
def command(output: Path | None, as_json: bool) -> int:
    """Do the whole job on the handwritten digits that ship with scikit-learn: train, export, fold, build, verify."""
    from rir_deploy.pipeline.demo import run_demo

    folder = output or Path(tempfile.mkdtemp(prefix="rir-deploy-demo-"))
    with common.progress(as_json) as progress, training_bar(as_json) as on_step:
        demo = run_demo(folder, on_step, progress)
    passed = all(verified.result.passed for _, verified in demo.engines)
    if as_json:
        common.print_json(demo.to_dict())
        return 0 if passed else GateError.exit_code
    from rir_deploy.cli.fold import print_fold
    from rir_deploy.report.console import percent, print_table, size

    common.say(f"trained a RiR on digits: top-1 {demo.trained.top1:.2%} on {demo.trained.test_images} test images")
    if demo.exported.folded is not None:
        print_fold(demo.exported.folded)
    rows = [
        (
            built.manifest.backend,
            built.manifest.precision,
            size(built.manifest.size_bytes),
            percent(verified.result.accuracy.reference_top1),
            percent(verified.result.accuracy.candidate_top1),
            percent(verified.result.accuracy.agreement),
            f"{verified.result.outputs.max_abs_error:.1e}",
            "passed" if verified.result.passed else "FAILED",
        )
        for built, verified in demo.engines
    ]
    columns = ("backend", "precision", "size", "top-1 PyTorch", "top-1 engine", "agreement", "max error", "parity")
    print_table("engines, verified against the checkpoint", columns, rows)
    common.say(f"{demo.seconds:.0f} s; everything is in {demo.folder}")
    return 0 if passed else GateError.exit_code
