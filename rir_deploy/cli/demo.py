"""rir-deploy demo"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, OutputPath
from rir_deploy.cli.train import training_bar
from rir_deploy.errors import GateError


@click.command("demo", cls=Command, short_help="Do the whole job on data that needs no download.")
@click.option(
    "-o", "--output", type=OutputPath("folder"), help="Folder for the results. Default: a new temporary folder."
)
@common.json_option
def command(output: Path | None, as_json: bool) -> int:
    """Do the whole job on the handwritten digits that ship with scikit-learn.

    Train a RiR, export, fold, cast to FP16, quantise to INT8, build an engine for every backend that is there, verify
    each against the checkpoint, time them, and write one HTML report.
    """
    from rir_deploy.cli.run import print_run
    from rir_deploy.pipeline.demo import run_demo

    started = time.perf_counter()
    folder = output or Path(tempfile.mkdtemp(prefix="rir-deploy-demo-"))
    with common.progress(as_json) as progress, training_bar(as_json) as on_step:
        record = run_demo(folder, on_step, progress)
    seconds = time.perf_counter() - started
    if as_json:
        common.print_json({"folder": str(folder), "seconds": seconds, **record})
    else:
        print_run(record, folder)
        common.say(f"{seconds:.0f} s; everything is in {folder}")
    return 0 if record["passed"] else GateError.exit_code
