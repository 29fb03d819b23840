"""rir-deploy export"""

from __future__ import annotations

from pathlib import Path

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command


@click.command("export", cls=Command, short_help="Trace a checkpoint to ONNX, fold it, check it against PyTorch.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@common.output_option("ONNX file to write.")
@common.recipe_option
@common.model_option
@common.weights_option
@common.data_option
@click.option("--image-size", callback=common.image_size, metavar="H[xW]", help="Size the network is traced for.")
@click.option("--opset", type=click.IntRange(18, 23), default=20, show_default=True, help="ONNX opset to write.")
@click.option("--no-fold", is_flag=True, help="Keep the raw trace.")
@click.option("--embed-preprocessing", "embed", is_flag=True, help="Take uint8 N x H x W x C camera images.")
@click.option("--no-check", is_flag=True, help="Skip both checks: of the fold, and against PyTorch.")
@common.force_option
@common.json_option
def command(
    checkpoint: Path | None,
    output: Path,
    recipe: str | None,
    factory: str | None,
    weights: str | None,
    data: str | None,
    image_size: tuple[int, int] | None,
    opset: int,
    no_fold: bool,
    embed: bool,
    no_check: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Trace CHECKPOINT to ONNX, fold it, and check it against PyTorch.

    CHECKPOINT is a .safetensors file of this tool, or a .pt/.pth state dict of pytorchcv's rir_cifar* or of
    pytorch-cifar100's rir.py; their widths and class counts are read off the tensors. With --model it is the state
    dict of your own module (leave it out to use the module as the function returns it).

    The check runs on --data, else on the recipe's own test images, else on random pixels.
    """
    from rir_deploy.pipeline.export import ExportRequest, export_file

    request = ExportRequest(
        checkpoint,
        recipe,
        factory,
        image_size,
        data,
        opset,
        fold=not no_fold,
        embed=embed,
        check=not no_check,
        weights=weights,
    )
    with common.progress(as_json) as progress:
        exported = export_file(request, output, force=force, progress=progress)
    if as_json:
        common.print_json({"output": str(output), "size_bytes": output.stat().st_size, **exported.to_dict()})
        return
    from rir_deploy.cli.fold import print_fold
    from rir_deploy.report.console import size

    if exported.folded is not None:
        print_fold(exported.folded)
    if exported.check is not None:
        outputs = exported.check.outputs
        common.say(
            f"checked against PyTorch on {exported.checked_on}: largest error {outputs.max_abs_error:.2g} "
            f"({outputs.max_relative_error:.1e} of the largest logit), "
            f"agreement {exported.check.accuracy.agreement:.2%}"
        )
    common.say(f"wrote {output} ({size(output.stat().st_size)}, {exported.seconds:.1f} s)")
