"""rir-deploy fold"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command

if TYPE_CHECKING:
    from rir_deploy.fold import FoldResult
    from rir_deploy.graph.equivalence import Equivalence


@click.command("fold", cls=Command, short_help="Fold any ONNX file: one convolution a block.")
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@common.output_option("ONNX file to write.")
@click.option("--require", is_flag=True, help="Exit with 3 where nothing folds.")
@click.option("--no-check", is_flag=True, help="Skip the comparison of the result with IN.onnx on random inputs.")
@common.force_option
@common.json_option
def command(source: Path, output: Path, require: bool, no_check: bool, force: bool, as_json: bool) -> None:
    """Fold every block whose branches are affine into one convolution, in any ONNX file.

    The result has the same inputs, outputs and function, and never more multiply-adds or weights. A folded block is a
    convolution that does the work of several branches.

    Both graphs are run on random inputs, in ONNX Runtime where it is installed, else in onnx's reference evaluator. If
    they differ, the command exits with 3 and writes nothing.
    """
    from rir_deploy.fold import FoldOptions
    from rir_deploy.pipeline.fold import fold_file

    result = fold_file(source, output, FoldOptions(require, check=not no_check), force=force)
    if as_json:
        common.print_json({"output": str(output), **result.to_dict()})
        return
    print_fold(result)
    common.say(f"wrote {output}")


def print_fold(result: FoldResult) -> None:
    """Before and after, and what was refused."""
    from rir_deploy.report.console import print_table, size

    before, after = result.before, result.after
    kinds = sorted(before.ops.keys() | after.ops.keys(), key=lambda kind: -before.ops.get(kind, 0))
    rows: list[tuple[object, ...]] = [
        ("folded blocks", "", result.blocks),
        ("nodes", before.nodes, after.nodes),
        *((f"  {kind}", before.ops.get(kind, 0), after.ops.get(kind, 0)) for kind in kinds),
        ("multiply-adds", f"{before.macs / 1e6:,.1f} M", f"{after.macs / 1e6:,.1f} M"),
        ("parameters", f"{before.params:,}", f"{after.params:,}"),
        ("weights", size(before.weight_bytes), size(after.weight_bytes)),
    ]
    print_table("fold" if result.modified else "fold: nothing to fold", ("", "before", "after"), rows)
    for refusal in result.refused:
        common.say(f"not folded: {refusal.node}: {refusal.reason}")
    if result.check is not None:
        common.say(_check_line(result.check))


def _check_line(check: Equivalence) -> str:
    if check.skipped:
        return f"not checked against the original: {check.skipped}"
    return (
        f"checked against the original on random inputs in {check.runtime}: largest difference "
        f"{check.difference:.1e} of the largest output (limit {check.limit:.0e}), {check.seconds:.1f} s"
    )
