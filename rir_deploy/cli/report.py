"""rir-deploy report"""

from __future__ import annotations

from pathlib import Path

import click

from rir_deploy.cli import common


@click.command("report", short_help="Write a run down as one HTML page.")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=common.OutputPath(), help="The page. Default: report.html in RUN_DIR.")
@common.force_option
@common.json_option
def command(run_dir: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Write the run in RUN_DIR down as one HTML page with plots, from its run.json alone.

    The page needs no network and no other file. A run that failed is written down like any other: the exit code
    speaks of the page.
    """
    from rir_deploy.report.write import write_report

    written = write_report(run_dir, output, force=force)
    if as_json:
        common.print_json(written.to_dict())
        return
    from rir_deploy.report.console import size

    common.say(f"run {'passed' if written.passed else 'FAILED'}: {written.sentence}")
    common.say(f"report: {written.path} ({size(written.size_bytes)})")
