"""rir-deploy quantize"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rir_deploy.cli import common
from rir_deploy.cli.calibration import (
    KEEP_HELP,
    calibration_options,
    calibration_request,
    say_calibration,
    search_request,
)
from rir_deploy.cli.outputs import Command, OutputPath


@click.command("quantize", cls=Command, short_help="Calibrate an ONNX file to INT8 (Q/DQ).")
@click.argument("source", metavar="IN.onnx", type=click.Path(path_type=Path))
@common.output_option("ONNX file to write.")
@common.data_option
@common.recipe_option
@click.option(
    "--qdq",
    "flavour",
    default="tensorrt",
    show_default=True,
    metavar="tensorrt|cpu",
    help="Where the Q/DQ pairs stand: as TensorRT or as ONNX Runtime and OpenVINO compute in integers.",
)
@click.option(
    "--rest",
    metavar="fp32|fp16",
    help="Type of what is not quantised, as build-engine has it by default: fp16 with --qdq tensorrt, fp32 with cpu.",
)
@click.option("--reduced-range", is_flag=True, help="7-bit weights, for CPUs without VNNI (--qdq cpu).")
@click.option("--keep", multiple=True, metavar="REGEX", help=KEEP_HELP)
@calibration_options
@click.option(
    "--save-ranges",
    type=OutputPath(),
    metavar="FILE",
    help="Write the range table as well, and beside it the rounded weights (.safetensors).",
)
@click.option(
    "--sensitivity",
    type=OutputPath(),
    metavar="FILE",
    help="Rank the layers by the damage that quantising each alone does, and write that as JSON.",
)
@common.force_option
@common.json_option
def command(
    source: Path,
    output: Path,
    data: str | None,
    recipe: str | None,
    flavour: str,
    rest: str | None,
    reduced_range: bool,
    keep: tuple[str, ...],
    save_ranges: Path | None,
    sensitivity: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantise an FP32 ONNX file on --data, or by a table made before: Q/DQ pairs and integer weights.

    Channels are equalised where that helps, weights are rounded to second order, biases corrected; --method auto takes
    the ranges that fit held-back images best. The same table gives the same file, byte for byte, without the data.
    """
    from rir_deploy.pipeline.lower import PrecisionRequest, quantize_file
    from rir_deploy.quantize import QuantizeOptions
    from rir_deploy.quantize.options import default_rest

    request = PrecisionRequest(
        "int8",
        QuantizeOptions(flavour, reduced_range, keep, rest or default_rest(flavour)),  # type: ignore[arg-type]
        calibration_request(data, options),
        search_request(options, rank=sensitivity is not None),
    )
    with common.progress(as_json) as progress:
        lowered = quantize_file(
            source,
            output,
            request,
            recipe=recipe,
            ranges=save_ranges,
            sensitivity=sensitivity,
            force=force,
            progress=progress,
        )
    if as_json:
        common.print_json({"output": str(output), "size_bytes": output.stat().st_size, **lowered.to_dict()})
        return
    from rir_deploy.report.console import size

    common.say(f"wrote {output} ({size(output.stat().st_size)}): {len(lowered.quantized)} nodes compute on integers")
    say_calibration(lowered.to_dict())
    for kept in lowered.kept:
        common.say(f"stays in a wider type: {kept.node}: {kept.reason}")
