"""rir-deploy roofline"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command

# Of the layers that hold an engine back, those that are printed; --json has all.
_LAYERS = 8


@click.command("roofline", cls=Command, short_help="Hold engines against what this machine can do.")
@click.argument("engines", metavar="ENGINE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@common.batches_option
@click.option("--threads", type=int, help="Threads of the runtimes. Default: all cores of this process.")
@click.option("--duration", "duration_s", type=float, default=3, show_default=True, metavar="S", help="Timing in all.")
@click.option("--rounds", type=int, default=3, show_default=True, help="Turns that the engines take.")
@click.option(
    "--from", "bench", type=click.Path(path_type=Path), metavar="FILE", help="Take the times that bench --json printed."
)
@click.option("--no-cache", is_flag=True, help="Measure the machine anew, and keep nothing of it.")
@common.recipe_option
@common.json_option
def command(
    engines: tuple[Path, ...],
    batches: tuple[int, ...],
    threads: int | None,
    duration_s: float,
    rounds: int,
    bench: Path | None,
    no_cache: bool,
    recipe: str | None,
    as_json: bool,
) -> int:
    """Hold every ENGINE (a folder built for onnxruntime or openvino, or an ONNX file) against this machine's ceilings.

    The ceilings are the most multiply-adds a second that any runtime reaches on a set of convolutions, the engine's own
    among them, and the bandwidth of copies. They are measured once and kept in the user's cache folder. What an engine
    takes is compared with the least that its layers could take, all together and one by one.
    """
    from rir_deploy.bench.options import BenchOptions
    from rir_deploy.pipeline.roofline import RooflineRequest, roofline_files

    options = BenchOptions(duration_s=duration_s, rounds=rounds, batches=batches, threads=threads)
    request = RooflineRequest(engines, options, recipe, bench, not no_cache)
    with common.progress(as_json) as progress:
        record = roofline_files(request, progress)
    if as_json:
        common.print_json(record)
    else:
        print_roofline(record)
    return 0


def print_roofline(record: dict[str, Any]) -> None:
    """The ceilings, the engines, and of each the layers that lose most."""
    from rir_deploy.report.console import percent, print_table
    from rir_deploy.report.text import short_names

    ceilings = [
        (one["precision"], one["backend"], f"{one['gmac_per_s']:.1f}", one["shape"]) for one in record["ceilings"]
    ]
    title = f"ceilings of {record['machine']['cpu']}, {record['threads']} threads"
    print_table(title, ("precision", "backend", "GMAC/s", "reached by"), ceilings)
    copies = ", ".join(
        f"{one['gb_per_s']:.1f} GB/s of {one['working_set_bytes'] / 2**20:g} MiB" for one in record["copies"]
    )
    common.say(f"copies: {copies}")
    names = short_names([row["engine"] for row in record["engines"]])
    rows = [
        (
            names[row["engine"]],
            row["backend"],
            row["precision"],
            row["batch"],
            f"{row['median_ms']:.3f}",
            f"{row['ceiling_ms']:.3f}",
            percent(row["share"], 1),
            f"{row['gmac_per_s']:.1f}",
        )
        for row in record["engines"]
    ]
    columns = ("engine", "backend", "precision", "batch", "median ms", "least ms", "of the ceiling", "GMAC/s")
    print_table("engines", columns, rows)
    for row in record["engines"]:
        _print_layers(row, names[row["engine"]])
    for row in record["engines"]:
        for warning in row["warnings"]:
            common.say(f"warning: {names[row['engine']]} at batch {row['batch']}: {warning}")
    for note in record["notes"]:
        common.say(f"warning: {note}")


def _print_layers(row: dict[str, Any], name: str) -> None:
    """Those that lose the most time, by the runtime's own profile."""
    from rir_deploy.report.console import percent, print_table

    timed = [layer for layer in row["layers"] if layer["measured_ms"]]
    worst = sorted(timed, key=lambda layer: layer["ceiling_ms"] - layer["measured_ms"])[:_LAYERS]
    if not worst:
        return
    rows = [
        (
            layer["node"],
            layer["block"] or "-",
            f"{layer['macs'] / 1e6:.1f}",
            f"{layer['measured_ms']:.3f}",
            f"{layer['ceiling_ms']:.3f}",
            percent(layer["ceiling_ms"] / layer["measured_ms"], 1),
            layer["bound"],
        )
        for layer in worst
    ]
    count, rest = len(row["layers"]), f"{row['rest_ms']:.3f} ms"
    title = f"{name} at batch {row['batch']}: the layers that lose most, of {count}; all else takes {rest}"
    print_table(title, ("layer", "block", "MMAC", "measured ms", "least ms", "of the ceiling", "bound by"), rows)
