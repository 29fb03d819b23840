"""rir-deploy report"""

from __future__ import annotations

from pathlib import Path

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, OutputPath, check_outputs


@click.command("report", cls=Command, short_help="Write a run down: a page, Markdown, JUnit XML, or on the terminal.")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OutputPath("report"),
    help="The page. Default: report.html in RUN_DIR, if nothing else is asked.",
)
@common.markdown_option
@common.junit_option
@click.option("--terminal", is_flag=True, help="Print all of it here.")
@common.force_option
@common.json_option
def command(
    run_dir: Path,
    output: Path | None,
    markdown: Path | None,
    junit: Path | None,
    terminal: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the run in RUN_DIR down as one HTML page with plots, from its run.json alone.

    The page needs no network and no other file. --markdown writes the same tables for a job's summary, --junit one test
    case a check for a CI system. A run that failed is written down like any other: the exit code speaks of the files.
    """
    from rir_deploy.report.outputs import write_run
    from rir_deploy.report.summary import summarize
    from rir_deploy.report.write import open_run, write_report

    run = open_run(run_dir)
    check_outputs(output, markdown, junit, force=force)
    files = write_run(run, markdown, junit, force=force)
    alone = output is None and (terminal or bool(files))
    written = None if alone else write_report(run_dir, output, force=force)
    summary = summarize(run)
    if as_json:
        page = {} if written is None else written.to_dict()
        common.print_json({"passed": summary.passed, "summary": summary.sentence, **page, **files})
        return
    from rir_deploy.report.console import show, size

    if terminal:
        from rir_deploy.report.sections import sections

        for section in sections(run):
            common.say("")
            common.say(section.title.upper())
            for doubt in section.doubts:
                common.say(f"to be wary of: {doubt}")
            for table in section.tables:
                show(table)
    common.say(f"run {'passed' if summary.passed else 'FAILED'}: {summary.sentence}")
    if written is not None:
        common.say(f"report: {written.path} ({size(written.size_bytes)})")
    for kind, path in files.items():
        common.say(f"{kind}: {path}")
