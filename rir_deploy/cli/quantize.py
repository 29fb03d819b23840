"""rir-deploy quantize"""

from __future__ import annotations

from pathlib import Path

import click

from rir_deploy.cli import common


@click.command("quantize", short_help="Calibrate an ONNX file to INT8 (Q/DQ).")
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
@click.option("--rest", default="fp32", show_default=True, metavar="fp32|fp16", help="Type of what is not quantised.")
@click.option("--reduced-range", is_flag=True, help="7-bit weights, for CPUs without VNNI (--qdq cpu).")
@click.option("--keep", multiple=True, metavar="REGEX", help="Nodes that stay in float; repeatable.")
@common.calibration_options
@click.option("--save-ranges", type=click.Path(path_type=Path), metavar="FILE", help="Write the range table as well.")
@common.force_option
@common.json_option
def command(
    source: Path,
    output: Path,
    data: str | None,
    recipe: str | None,
    flavour: str,
    rest: str,
    reduced_range: bool,
    keep: tuple[str, ...],
    ranges: Path | None,
    samples: int | None,
    method: str | None,
    percentile: float | None,
    save_ranges: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Quantise an FP32 ONNX file: ranges from --data (or a table made before), then Q/DQ pairs and integer weights.

    The same table gives the same file, byte for byte, without the data.
    """
    from rir_deploy.pipeline.calibrate import CalibrationRequest
    from rir_deploy.pipeline.lower import PrecisionRequest, quantize_file
    from rir_deploy.quantize import QuantizeOptions

    request = PrecisionRequest(
        "int8",
        QuantizeOptions(flavour, reduced_range, keep, rest),  # type: ignore[arg-type]
        CalibrationRequest(data, ranges, samples, method, percentile),
    )
    with common.progress(as_json) as progress:
        lowered = quantize_file(
            source, output, request, recipe=recipe, ranges=save_ranges, force=force, progress=progress
        )
    if as_json:
        common.print_json({"output": str(output), "size_bytes": output.stat().st_size, **lowered.to_dict()})
        return
    from rir_deploy.report.console import size

    common.say(f"wrote {output} ({size(output.stat().st_size)}): {len(lowered.quantized)} nodes compute on integers")
    for kept in lowered.kept:
        common.say(f"stays in a wider type: {kept.node}: {kept.reason}")
