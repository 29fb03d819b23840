"""rir-deploy compare"""

from __future__ import annotations

import os
from pathlib import Path

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, OutputPath, check_outputs
from rir_deploy.errors import GateError, UsageError


@click.command("compare", cls=Command, short_help="Hold runs against each other.")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", type=OutputPath(), metavar="FILE", help="Write it as one HTML page too.")
@common.markdown_option
@common.junit_option
@click.option("--fail-if-worse", is_flag=True, help="Exit with 3 where a later run is worse, incomplete or failed.")
@common.force_option
@common.json_option
def command(
    runs: tuple[Path, ...],
    html: Path | None,
    markdown: Path | None,
    junit: Path | None,
    fail_if_worse: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Show runs side by side, engine by engine: size, accuracy, SQNR, latency and throughput, each against the first
    RUN.

    A RUN is the folder of a run or its run.json. A difference within chance or noise is called level; where images,
    machines or checkpoints differ, that is said, and what they decide is not judged.
    """
    from rir_deploy.report.compare import compare_runs
    from rir_deploy.report.outputs import write_compared
    from rir_deploy.report.text import short_names
    from rir_deploy.report.write import RECORD_NAME, open_run

    if len(runs) < 2:
        raise UsageError("name at least two runs")
    records = [os.path.realpath(path / RECORD_NAME if os.path.isdir(path) else path) for path in runs]
    twice = [path for index, path in enumerate(runs) if records[index] in records[:index]]
    if twice:
        raise UsageError(f"the run '{twice[0]}' is named twice; name each run once")
    check_outputs(html, markdown, junit, force=force)
    folders = [str(path.parent if path.is_file() else path) for path in runs]
    names = short_names(folders)
    compared = compare_runs([(names[folder], open_run(path)) for folder, path in zip(folders, runs, strict=True)])
    files = write_compared(compared, html, markdown, junit, force=force)
    if as_json:
        common.print_json({**compared.to_dict(), **files})
    else:
        from rir_deploy.report.console import show
        from rir_deploy.report.tables_compare import measures_table, runs_table

        show(runs_table(compared))
        show(measures_table(compared))
        for note in compared.notes:
            common.say(f"to be wary of: {note}")
        for kind, path in files.items():
            common.say(f"{kind}: {path}")
    reasons = [*compared.worse, *(f"{name} did not pass" for name in compared.failed)]
    if fail_if_worse and reasons:
        common.complain(f"worse: {'; '.join(reasons)}")
        return GateError.exit_code
    return 0
