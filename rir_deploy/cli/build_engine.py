"""rir-deploy build-engine"""

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
from rir_deploy.errors import UsageError


def _tensorrt_options(function: common.Function) -> common.Function:
    """What only TensorRT's builder knows."""
    options = (
        click.option("--workspace", type=int, metavar="MIB", help="TensorRT: GPU memory a kernel may use."),
        click.option("--builder-level", type=int, metavar="0-5", help="TensorRT: how long to search for kernels."),
        click.option(
            "--timing-cache",
            type=OutputPath("cache"),
            metavar="FILE",
            help="TensorRT: kernel timings, read and written; a second build is faster.",
        ),
        click.option("--version-compatible", is_flag=True, help="TensorRT: the engine loads in later versions too."),
        click.option(
            "--hardware-compatible",
            metavar="LEVEL",
            help="TensorRT: ampere-plus or same-capability; the engine runs on those GPUs too.",
        ),
        click.option("--refit", is_flag=True, help="TensorRT, RTX: the engine's weights can be replaced later."),
        click.option(
            "--strip-weights",
            is_flag=True,
            help="TensorRT, RTX: leave the weights out of the engine; loading takes them from the graph beside it.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("build-engine", cls=Command, short_help="Build an engine from a checkpoint or an ONNX file.")
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@common.output_option("Folder to write: engine, manifest and the graph it was built from.", "engine")
@click.option("--fp32", is_flag=True, help="FP32 (the default for a checkpoint).")
@click.option("--fp16", is_flag=True, help="Cast to FP16; with --data, activations that overflow stay FP32.")
@click.option("--int8", is_flag=True, help="Calibrate to INT8 on --data or by --ranges.")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, tensorrt, tensorrt-rtx, openvino, onnxruntime, onnxruntime-cuda or onnxruntime-rtx.",
)
@click.option("--target", metavar="SM,...", help="GPUs to build for (sm75,sm80,sm86,sm89,sm120,sm121): TensorRT-RTX.")
@_tensorrt_options
@common.recipe_option
@common.model_option
@common.weights_option
@common.data_option
@calibration_options
@click.option("--keep", multiple=True, metavar="REGEX", help=KEEP_HELP + " Goes with --int8.")
@click.option("--reduced-range", is_flag=True, help="7-bit weights under --int8, for CPUs without VNNI.")
@click.option(
    "--batch",
    metavar="MIN,OPT,MAX",
    help="Batch sizes the engine takes, and the one it is tuned for; a model of another, fixed batch is made dynamic. "
    "[default: 1,1,32, or the model's own fixed batch]",
)
@click.option("--no-fold", is_flag=True, help="Build from the graph as it is.")
@common.force_option
@common.json_option
def command(
    source: Path,
    output: Path,
    fp32: bool,
    fp16: bool,
    int8: bool,
    backend: str,
    target: str | None,
    workspace: int | None,
    builder_level: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: str | None,
    refit: bool,
    strip_weights: bool,
    recipe: str | None,
    factory: str | None,
    weights: str | None,
    data: str | None,
    keep: tuple[str, ...],
    reduced_range: bool,
    batch: str | None,
    no_fold: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Build an engine from MODEL, a checkpoint, an ONNX file or a bundle; the stages before it are run where needed.

    --backend auto takes the first that really works here and says which. TensorRT-RTX builds with no GPU at all.
    Precision is in the graph; no option of the builder changes it.
    """
    from rir_deploy.engines.tensorrt_options import TensorRtOptions
    from rir_deploy.pipeline.build import BuildRequest
    from rir_deploy.pipeline.build_bundled import build_engine
    from rir_deploy.pipeline.lower import PRECISIONS

    asked = [name for name, flag in zip(PRECISIONS, (fp32, fp16, int8), strict=True) if flag]
    if len(asked) > 1:
        raise UsageError(f"--{' and --'.join(asked)} exclude each other; build one engine for each")
    request = BuildRequest(
        source,
        backend,
        asked[0] if asked else None,
        recipe,
        factory,
        calibration_request(data, options),
        search_request(options),
        keep,
        reduced_range,
        None if batch is None else common.batch_range(batch),
        tuple(name.strip() for name in target.split(",")) if target else (),
        TensorRtOptions(
            workspace, builder_level, timing_cache, version_compatible, hardware_compatible, refit, strip_weights
        ),
        fold=not no_fold,
        command=common.command_line(),
        weights=weights,
    )
    with common.progress(as_json) as progress:
        built = build_engine(request, output, force=force, progress=progress)
    if as_json:
        common.print_json(built.to_dict())
        return
    from rir_deploy.report.console import size

    manifest = built.manifest
    targets = f", for {', '.join(manifest.targets)}" if manifest.targets else ""
    common.say(
        f"wrote {output}: {manifest.backend} {manifest.backend_version}, {manifest.precision}, "
        f"{size(manifest.size_bytes)}, batch {manifest.batch[0]} to {manifest.batch[2]}{targets} "
        f"({built.seconds:.1f} s)"
    )
    kinds = manifest.realized.get("conv")
    if isinstance(kinds, dict):
        common.say(f"convolutions computed in: {', '.join(f'{kind} ({count})' for kind, count in kinds.items())}")
    say_calibration(built.to_dict())
    for kept in built.lowered.kept:
        common.say(f"stays in a wider type: {kept.node}: {kept.reason}")
