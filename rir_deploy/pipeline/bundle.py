"""bundle: a run folder to the one file that goes to a device."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rir_deploy import __version__
from rir_deploy.artifacts import atomic_file, check_output, sha256_file
from rir_deploy.bundle import Bounds, Golden, Index, Item, Member, pack
from rir_deploy.bundle.golden import IMAGES, OUTPUTS, read_array, write_array
from rir_deploy.bundle.index import IMAGES_NAME, REFERENCE
from rir_deploy.data.sampling import choose
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import BackendError, GateError, InputError, UsageError, unknown_name
from rir_deploy.file_system import scratch_folder
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.progress import Progress, silent, tracked
from rir_deploy.pipeline.self_test import Logits, answers, judge, open_item
from rir_deploy.pipeline.sides import BUNDLE_SUFFIX
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.pipeline.steps import RUN_NAME
from rir_deploy.recipe import Recipe
from rir_deploy.report.schema import Run, read_run
from rir_deploy.strict_data import parse_json

IMAGE_COUNT = 32
# The gates of `verify` are for whole test sets; 32 images tell shares apart in steps of 3 %. One, two or three of them
# may flip: of engines at the very edge of their gate (97 % for INT8), one in 67 flips more.
BOUNDS = {
    "fp32": Bounds(min_agreement=0.96, atol=1e-6, rtol=1e-4),
    "fp16": Bounds(min_agreement=0.93, atol=1e-3, rtol=2e-2),
    "int8": Bounds(min_agreement=0.90, atol=None, rtol=None),
}


@dataclass(frozen=True)
class BundleRequest:
    """What goes into a bundle.

    Attributes:
        run: folder of a finished run.
        engines: names of those to take along, None for all of them.
        data: test images; by default those of the run.
        seed: 0 to 2**32 - 1, of the choice of golden images.
    """

    run: Path
    engines: tuple[str, ...] | None = None
    data: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written; its sha256 is what another machine can compare its copy with."""

    path: Path
    sha256: str
    size_bytes: int
    index: Index

    def to_dict(self) -> dict[str, object]:
        text = json.loads(self.index.to_json())
        return {"bundle": str(self.path), "sha256": self.sha256, "size_bytes": self.size_bytes, **text}


def make_bundle(request: BundleRequest, output: Path, *, force: bool, progress: Progress = silent) -> Bundled:
    """Write the bundle of a run. The same run folder gives the same bytes, on a machine that computes the same.

    Raises:
        UsageError: not the folder of a run, an engine that it does not have, no test images.
        InputError: a file that is not as the run left it.
        BackendError: ONNX Runtime, which gives the golden outputs, is not installed.
        GateError: a graph or engine that failed its parity gate in the run, or fails on the golden images.
    """
    if output.suffix != BUNDLE_SUFFIX:
        raise UsageError(f"'{output}' does not end in {BUNDLE_SUFFIX}, by which a bundle is known; name it so")
    check_output(output, force=force)
    run = _read_run(request.run)
    items = [*_graphs(run), *_engines(run, request.engines)]
    odd = next((item for item in items if item.precision not in BOUNDS), None)
    if odd is not None:
        raise InputError(f"the record of '{request.run}' calls '{odd.name}' {odd.precision}; repeat the run")
    with scratch_folder() as folder:
        _copy_files(request.run, run, items, folder)
        items = [_described(item, folder) for item in items]
        recipe, golden = _write_images(request, run, folder)
        items = _record_outputs(items, folder, recipe, progress)
        index = Index(f"rir-deploy {__version__}", recipe.to_dict(), golden, tuple(items), BOUNDS, _members(folder))
        with atomic_file(output, force=force) as temporary:
            pack(folder, index, temporary)
    return Bundled(output, sha256_file(output), output.stat().st_size, index)


def _read_run(folder: Path) -> Run:
    path = folder / RUN_NAME
    try:
        return read_run(parse_json(path.read_text(encoding="utf-8")), str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"'{folder}' is no finished run: it has no {RUN_NAME}; name the folder of one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON; repeat the run") from error


def _graphs(run: Run) -> list[Item]:
    """The FP32 graph is in every run, and first: all answers are held against its own."""
    others = [Item(graph.name, graph.precision, graph.flavour) for graph in run.graphs if graph.name != REFERENCE]
    return [Item(REFERENCE, "fp32"), *others]


def _engines(run: Run, names: tuple[str, ...] | None) -> list[Item]:
    known = {engine.name: engine for engine in run.engines}
    for name in names or ():
        if name not in known:
            raise unknown_name("engine", name, known)
    chosen = [engine for engine in run.engines if names is None or engine.name in names]
    failed = next((engine.name for engine in chosen if engine.status == "failed"), None)
    if failed is not None:
        raise GateError(f"the engine '{failed}' failed its parity gate in the run; name those to take with --engine")
    return [Item(one.name, one.precision, one.flavour, one.backend) for one in chosen]


def _copy_files(source: Path, run: Run, items: list[Item], folder: Path) -> None:
    """What the bundle holds of the run, by the run's own record of it."""
    recorded = {file.path: file.sha256 for file in run.files}
    wanted = [path for path in recorded if any(item.owns(path) for item in items)]
    for path in wanted:
        target = folder / Member(path, 0, recorded[path]).name  # a name that is checked
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / path, target)
        except FileNotFoundError as error:
            raise InputError(f"'{source / path}' is missing; repeat the run, which makes it again") from error
        if sha256_file(target) != recorded[path]:
            raise InputError(f"'{source / path}' is not as the run left it; repeat the run, which makes it again")
    missing = next((item.path for item in items if not (folder / item.path).exists()), None)
    if missing is not None:
        raise InputError(f"the record of '{source}' does not list '{missing}'; repeat the run")


def _described(item: Item, folder: Path) -> Item:
    if item.backend is None:
        return item
    manifest = check_engine(folder / item.path)
    return replace(item, backend_version=manifest.backend_version, targets=manifest.targets)


def _write_images(request: BundleRequest, run: Run, folder: Path) -> tuple[Recipe, Golden]:
    """Golden images by seed, balanced over the classes, and the recipe that they are preprocessed by."""
    provenance = read_provenance(load_onnx(folder / f"graphs/{REFERENCE}.onnx"))
    if provenance is None or provenance.recipe is None:
        raise InputError(f"the graph '{REFERENCE}' of '{request.run}' records no recipe; repeat the run")
    recipe = Recipe.from_dict(provenance.recipe)
    try:
        dataset = open_dataset(request.data or run.data, recipe, "test")
    except UsageError as error:
        raise UsageError(f"the test images of the run are not there: {error}; name them with --data") from error
    count = min(IMAGE_COUNT, len(dataset))
    indices = choose(dataset.labels, len(dataset), count, request.seed)
    write_array(folder / IMAGES_NAME, dataset.raw(indices), IMAGES)
    # The last part of a path only: where the images lay is no one else's business, and would change the bytes.
    name, sha256 = Path(dataset.source.name).name, dataset.source.fingerprint()
    return recipe, Golden(name, sha256, request.seed, tuple(indices.tolist()))


def _record_outputs(items: list[Item], folder: Path, recipe: Recipe, progress: Progress) -> list[Item]:
    """Run what can run here and keep its answers, so that a device can be held to them."""
    images = read_array(folder / IMAGES_NAME, IMAGES, rank=4).astype(np.uint8)
    reference: Logits | None = None
    done = []
    for item in tracked(items, "recording", len(items), progress):
        try:
            # One thread, so that sums are added in one order.
            with open_item(folder, item, threads=1) as side:
                found = answers(side, images, recipe.preprocessing)
        except BackendError as error:
            if reference is None:
                raise
            done.append(replace(item, reason=str(error)))
            continue
        reference = found if reference is None else reference
        failures = judge(reference, found, BOUNDS[item.precision]).failures
        if failures:
            reasons = "; ".join(failures)
            raise GateError(f"'{item.name}' fails on the golden images ({reasons}); leave it out, or build it better")
        write_array(folder / item.outputs, found, OUTPUTS)
        done.append(replace(item, ran_on=side.runs_on))
    return done


def _members(folder: Path) -> tuple[Member, ...]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return tuple(Member(name, files[name].stat().st_size, sha256_file(files[name])) for name in sorted(files))
