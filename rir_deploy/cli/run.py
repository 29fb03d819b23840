"""rir-deploy run"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, check_outputs, protect
from rir_deploy.cli.train import training_bar
from rir_deploy.errors import GateError

if TYPE_CHECKING:
    from rir_deploy.pipeline.plan import Plan
    from rir_deploy.report.schema import Run

# Of a ranking; the report has the rest.
_LAYERS = 10


@click.command("run", cls=Command, short_help="Do all of it, by a plan, into one folder.")
@click.argument("plan", metavar="DEPLOY.toml", type=click.Path(path_type=Path))
@common.output_option("Folder of the run. A run that was interrupted continues in it.", "folder")
@common.markdown_option
@common.junit_option
@common.json_option
def command(plan: Path, output: Path, markdown: Path | None, junit: Path | None, as_json: bool) -> int:
    """Export, fold, cast, quantise, build, verify, time and report, as DEPLOY.toml says.

    Every step is recorded with the hashes of what went in and what came out: the same command continues a run that was
    killed, and does again only what has changed. Exits with 3 where an engine failed its parity gate.
    """
    from rir_deploy.pipeline.plan import read_plan
    from rir_deploy.pipeline.run import run_plan
    from rir_deploy.report.outputs import write_run
    from rir_deploy.report.schema import read_run

    chosen = read_plan(plan)
    protect(click.get_current_context(), _inputs(chosen))
    check_outputs(markdown, junit, force=True)
    with common.progress(as_json) as progress, training_bar(as_json) as on_step:
        record = run_plan(chosen, output, on_step=on_step, progress=progress)
    # As all that a run makes, they are made anew each time.
    write_run(read_run(record), markdown, junit, force=True)
    if as_json:
        common.print_json(record)
    else:
        print_run(record, output)
    return 0 if record["passed"] else GateError.exit_code


def _inputs(plan: Plan) -> dict[str, object]:
    """What a plan names, by the options of other commands."""
    searched = None if plan.search is None else plan.search.eval_data
    return {
        "checkpoint": plan.checkpoint,
        "recipe": plan.recipe,
        "data": tuple(plan.data.values()),
        "eval_data": searched,
    }


def print_run(record: dict[str, Any], folder: Path) -> None:
    """The run as tables: the fold, the engines, INT8, the timing."""
    from rir_deploy.report.console import percent, print_table, size
    from rir_deploy.report.schema import read_run

    model, folded = record["model"], record["export"]["fold"]
    if model["recorded_top1"] is not None:
        common.say(f"{model['checkpoint']}: {model['parameters']:,} parameters, top-1 {model['recorded_top1']:.2%}")
    if folded is not None:
        keys = ("convs", "nodes", "macs", "params")
        print_table(
            "fold",
            ("", "before", "after"),
            [(key, *(f"{folded[key][x]:,}" for x in ("before", "after"))) for key in keys],
        )
    rows = []
    for engine in record["engines"]:
        check = engine["verify"]
        parity = "passed" if check["passed"] else "FAILED"
        rows.append(
            (
                engine["backend"],
                engine["precision"],
                size(engine["size_bytes"]),
                percent(check["reference"]["top1"]),
                percent(check["candidate"]["top1"]),
                percent(check["agreement"]),
                f"{check['max_abs_error']:.1e}",
                f"{parity} (simulation)" if check["simulation"] else parity,
                _how(engine),
            )
        )
    columns = ("backend", "precision", "size", "top-1 PyTorch", "top-1", "agreement", "max error", "parity", "engine")
    print_table(f"engines against the checkpoint, on {record['data']}", columns, rows)
    run = read_run(record)
    _print_int8(run)
    _print_bench(run)
    common.say(f"report: {folder / 'report.html'}")


def _print_int8(run: Run) -> None:
    """How INT8 was chosen, which layers hurt, and what folding is worth; all of it is in the report."""
    from rir_deploy.report.console import show
    from rir_deploy.report.tables_int8 import candidates_table, pairs_table, ranking_table

    tables = [table for graph in run.graphs for table in (candidates_table(graph), ranking_table(graph, _LAYERS))]
    for table in (*tables, pairs_table(run)):
        if table is not None:
            show(table)


def _print_bench(run: Run) -> None:
    """One call after another, and several in flight, which are figures of another kind."""
    from rir_deploy.report.console import show
    from rir_deploy.report.tables_bench import latency_table, throughput_table

    bench = run.bench
    for table in () if bench is None else (latency_table(bench), throughput_table(bench)):
        if table is not None:
            show(table)


def _how(engine: dict[str, Any]) -> str:
    if engine["status"] == "built, not run":
        return "built, not run: no GPU" if engine["reason"].startswith("no GPU") else f"not run: {engine['reason']}"
    return "ran, computing in FP32" if engine["precision"] == "fp16" and engine["reason"] else "ran"
