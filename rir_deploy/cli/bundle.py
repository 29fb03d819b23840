"""rir-deploy bundle"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command
from rir_deploy.errors import UsageError

if TYPE_CHECKING:
    from rir_deploy.pipeline.bundle import Bundled


@click.command("bundle", cls=Command, short_help="Pack a run into the one file that goes to a device.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@common.output_option("File to write, ending in .zip.")
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="An engine to take; repeatable. Default: all.")
@click.option("--no-engines", is_flag=True, help="Graphs only: the device builds its own engines.")
@click.option(
    "--data", metavar="SOURCE", help="Images to choose the golden ones from. Default: the test images of the run."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of that choice.")
@common.force_option
@common.json_option
def command(
    run: Path,
    output: Path,
    engines: tuple[str, ...],
    no_engines: bool,
    data: str | None,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Pack the run in the folder RUN into one file: graphs, engines with their manifests, the range table, the recipe,
    and 32 golden images with what graphs and engines answer to them here.

    On the device, verify, bench and build-engine take the file, with numpy and one runtime and no torch. They refuse it
    where any byte of it is changed.
    """
    from rir_deploy.pipeline.bundle import BundleRequest, make_bundle

    if engines and no_engines:
        raise UsageError("--engine and --no-engines exclude each other; leave one out")
    request = BundleRequest(run, () if no_engines else engines or None, data, seed)
    with common.progress(as_json) as progress:
        bundled = make_bundle(request, output, force=force, progress=progress)
    if as_json:
        common.print_json(bundled.to_dict())
    else:
        _print(bundled)


def _print(bundled: Bundled) -> None:
    from rir_deploy.report.console import print_table, size

    index = bundled.index
    sizes = {item.name: sum(m.size_bytes for m in index.members if item.owns(m.name)) for item in index.items}
    rows = [
        (item.name, item.kind, item.precision, size(sizes[item.name]), item.ran_on or f"not run: {item.reason}")
        for item in index.items
    ]
    golden = f"{len(index.golden.indices)} images of {index.golden.source}"
    print_table("bundle", ("name", "kind", "precision", "size", f"answers recorded for {golden}"), rows)
    common.say(f"wrote {bundled.path}: {len(index.members)} members, {size(bundled.size_bytes)}")
    common.say(f"sha256 {bundled.sha256}")
