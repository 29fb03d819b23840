"""rir-deploy build-engine"""

from __future__ import annotations

from pathlib import Path

import click

from rir_deploy.cli import common


@click.command("build-engine", short_help="Build an engine from a checkpoint or an ONNX file.")
@click.argument("source", metavar="MODEL", type=click.Path(path_type=Path))
@common.output_option("Folder to write: engine, manifest and the graph it was built from.")
@click.option("--backend", default="auto", show_default=True, metavar="NAME", help="auto, onnxruntime.")
@common.recipe_option
@common.model_option
@common.data_option
@click.option(
    "--batch",
    default="1,1,32",
    show_default=True,
    metavar="MIN,OPT,MAX",
    help="Batch sizes the engine takes, and the one it is tuned for.",
)
@click.option("--no-fold", is_flag=True, help="Build from the graph as it is.")
@common.force_option
@common.json_option
def command(
    source: Path,
    output: Path,
    backend: str,
    recipe: str | None,
    factory: str | None,
    data: str | None,
    batch: str,
    no_fold: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Build an engine from MODEL, a checkpoint or an ONNX file; the stages before it are run where needed.

    --backend auto takes the first that really works here and says which.
    """
    from rir_deploy.pipeline.build import BuildRequest, build_engine

    request = BuildRequest(
        source,
        backend,
        recipe,
        factory,
        data,
        common.batch_range(batch),
        fold=not no_fold,
        command=common.command_line(),
    )
    with common.progress(as_json) as progress:
        built = build_engine(request, output, force=force, progress=progress)
    if as_json:
        common.print_json(built.to_dict())
        return
    from rir_deploy.report.console import size

    manifest = built.manifest
    common.say(
        f"wrote {output}: {manifest.backend} {manifest.backend_version}, {manifest.precision}, "
        f"{size(manifest.size_bytes)}, batch {manifest.batch[0]} to {manifest.batch[2]} ({built.seconds:.1f} s)"
    )
