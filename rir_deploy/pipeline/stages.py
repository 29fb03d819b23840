"""verify RUN: every stage of a run on the same images, so that a loss shows where it enters.

    PyTorch ─ traced ONNX ─ folded ONNX ┬ FP16 ONNX ─ engines
                                        └ Q/DQ ONNX ─ engines

Each stage is held against PyTorch, by the gate of its precision, and against the stage it was made from. A run does not
keep the raw trace: the checkpoint is exported again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rir_deploy.artifacts import sha256_file
from rir_deploy.errors import InputError, UsageError
from rir_deploy.file_system import scratch_folder
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx
from rir_deploy.pipeline.checkpoints import trace
from rir_deploy.pipeline.chosen import check_not_chosen_on
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.pipeline.stage_table import FOLDED_FILE, Made, Stages, compare_stages, graph_stage, stages_in
from rir_deploy.pipeline.steps import RUN_NAME
from rir_deploy.recipe import Recipe
from rir_deploy.report.schema import Run, read_run
from rir_deploy.strict_data import parse_json


@dataclass(frozen=True)
class StagesRequest:
    """``checkpoint`` is needed where the run did not train one itself; ``data`` defaults to the run's test images."""

    run: Path
    checkpoint: Path | None = None
    data: str | None = None
    factory: str | None = None
    batch: int = 32
    threads: int | None = None
    weights: str | None = None


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a finished run."""
    return (path / RUN_NAME).is_file()


def verify_stages(request: StagesRequest, progress: Progress = silent) -> Stages:
    """Run every stage on all test images and compare.

    Raises:
        UsageError: not a run, its checkpoint is not at hand, or is another; images that layers were chosen on.
        InputError: a file is not as the run left it.
        BackendError: torch or ONNX Runtime is not installed.
    """
    run = _read(request.run)
    checkpoint = _checkpoint(request, run)
    _check_graphs(request.run, run)
    recipe = _recipe(request.run)
    dataset = open_dataset(request.data or run.data, recipe, "test")
    for graph in run.graphs:
        check_not_chosen_on(request.run / graph.file, dataset)
    with _sides(request, run, checkpoint, recipe) as sides:
        return compare_stages(
            sides,
            dataset,
            recipe.name,
            factory=request.factory,
            weights=request.weights or run.model.weights,
            batch=request.batch,
            threads=request.threads,
            progress=progress,
        )


@contextmanager
def _sides(request: StagesRequest, run: Run, checkpoint: Path, recipe: Recipe) -> Iterator[list[Made]]:
    """Every stage of the run."""
    model = trace(checkpoint, request.factory, recipe.preprocessing.input_shape, request.weights or run.model.weights)
    with scratch_folder() as temporary:
        traced = temporary / "traced.onnx"
        save_onnx(model, traced, force=False)
        graphs = [(graph_stage(one.precision, one.flavour), one.file) for one in run.graphs]
        engines = [(one.name, graph_stage(one.precision, one.flavour)) for one in run.engines]
        yield stages_in(request.run, checkpoint, traced, graphs, engines)


def _read(folder: Path) -> Run:
    path = folder / RUN_NAME
    try:
        return read_run(parse_json(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON; repeat the run") from error


def _checkpoint(request: StagesRequest, run: Run) -> Path:
    path = request.checkpoint or request.run / run.model.checkpoint
    if not path.is_file():
        raise UsageError(
            f"the checkpoint '{run.model.checkpoint}' of the run is not in its folder; name it: "
            f"rir-deploy verify {run.model.checkpoint} {request.run}"
        )
    if sha256_file(path) != run.model.sha256:
        raise UsageError(f"'{path}' is not the checkpoint that '{request.run}' was made from (sha256 differs)")
    return path


def _check_graphs(folder: Path, run: Run) -> None:
    """Engines are checked by their manifests, when they are opened."""
    for file in run.files:
        path = folder / file.path
        if file.path.startswith("graphs/") and not (path.is_file() and sha256_file(path) == file.sha256):
            raise InputError(f"'{path}' is not as the run left it; repeat the run, which makes it again")


def _recipe(folder: Path) -> Recipe:
    provenance = read_provenance(load_onnx(folder / FOLDED_FILE))
    if provenance is None or provenance.recipe is None:
        raise InputError(f"'{folder / FOLDED_FILE}' does not record its recipe; repeat the run")
    return Recipe.from_dict(provenance.recipe)
