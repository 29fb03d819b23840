"""verify RUN: every stage of a run on the same images, so that a loss shows where it enters.

    PyTorch ─ traced ONNX ─ folded ONNX ┬ FP16 ONNX ─ engines
                                        └ Q/DQ ONNX ─ engines

Each stage is held against PyTorch, by the gate of its precision, and against the stage it was made from. A run does not
keep the raw trace: the checkpoint is exported again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rir_deploy.artifacts import sha256_file
from rir_deploy.data.dataset import Dataset
from rir_deploy.errors import InputError, UsageError
from rir_deploy.export import ExportOptions, export
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx
from rir_deploy.pipeline.checkpoints import load_module
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.run import RUN_NAME
from rir_deploy.pipeline.sides import Side, open_side
from rir_deploy.pipeline.sources import image_batches, open_dataset
from rir_deploy.recipe import Recipe
from rir_deploy.report.schema import Run, read_run
from rir_deploy.report.schema_engine import Engine
from rir_deploy.verify import GATES, Gate, VerifyResult, verify

Logits = NDArray[np.floating]
PYTORCH, TRACED, FOLDED = "PyTorch", "traced ONNX", "folded ONNX"
FOLDED_FILE = "graphs/fp32.onnx"


@dataclass(frozen=True)
class StagesRequest:
    """``checkpoint`` is needed where the run did not train one itself; ``data`` defaults to the run's test images."""

    run: Path
    checkpoint: Path | None = None
    data: str | None = None
    factory: str | None = None
    batch: int = 32
    threads: int | None = None


@dataclass(frozen=True)
class Stage:
    """One stage: ``against`` compares it with PyTorch, ``parent`` with the stage ``made_from``; PyTorch has neither."""

    name: str
    made_from: str | None
    side: dict[str, object]
    against: VerifyResult | None
    parent: VerifyResult | None

    def to_dict(self) -> dict[str, object]:
        results = {"against_pytorch": self.against, "against_parent": self.parent}
        return {"name": self.name, "made_from": self.made_from, **self.side} | {
            key: None if result is None else _figures(result) for key, result in results.items()
        }


@dataclass(frozen=True)
class Stages:
    """All stages of a run, each after the one it was made from."""

    rows: tuple[Stage, ...]
    top1: float | None
    images: int
    data: str
    recipe: str

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f"{row.name}: {text}" for row in self.rows if row.against for text in row.against.failures)

    @property
    def worst(self) -> Stage | None:
        """The stage at which the most top-1 is lost to the stage before; None where none loses any."""
        lossy = [(row.parent.accuracy.top1_drop or 0.0, row) for row in self.rows if row.parent is not None]
        drop, stage = max(lossy, key=lambda pair: pair[0], default=(0.0, None))
        return stage if drop > 0 else None

    def to_dict(self) -> dict[str, object]:
        return {
            "passed": not self.failures,
            "failures": list(self.failures),
            "images": self.images,
            "data": self.data,
            "recipe": self.recipe,
            "top1": self.top1,
            "largest_loss_at": None if self.worst is None else self.worst.name,
            "stages": [row.to_dict() for row in self.rows],
        }


def _figures(result: VerifyResult) -> dict[str, object]:
    """Without the flips, which are those of `verify` on the two stages."""
    return {key: value for key, value in result.to_dict().items() if key != "flips"}


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a finished run."""
    return (path / RUN_NAME).is_file()


def verify_stages(request: StagesRequest, progress: Progress = silent) -> Stages:
    """Run every stage on all test images and compare.

    Raises:
        UsageError: not a run, its checkpoint is not at hand, or is another.
        InputError: a file is not as the run left it.
        BackendError: torch or ONNX Runtime is not installed.
    """
    run = _read(request.run)
    checkpoint = _checkpoint(request, run)
    _check_graphs(request.run, run)
    recipe = _recipe(request.run)
    dataset = open_dataset(request.data or run.data, recipe, "test")
    logits: dict[str, Logits] = {}
    rows = []
    with _sides(request, run, checkpoint, recipe) as sides:
        for name, made_from, path in sides:
            with open_side(path, model=request.factory, threads=request.threads, simulate=True) as side:
                logits[name] = _answers(side, dataset, request.batch, name, progress)
                rows.append(_stage(name, made_from, side, logits, dataset.labels))
    return Stages(tuple(rows), _top1(logits[PYTORCH], dataset.labels), len(dataset), dataset.source.name, recipe.name)


def _stage(
    name: str, made_from: str | None, side: Side, logits: dict[str, Logits], labels: NDArray[np.int64] | None
) -> Stage:
    if made_from is None:
        return Stage(name, None, side.to_dict(), None, None)
    gate = GATES[side.precision]
    against, parent = (_compare(logits[other], logits[name], labels, gate) for other in (PYTORCH, made_from))
    return Stage(name, made_from, side.to_dict(), against, parent)


def _compare(reference: Logits, candidate: Logits, labels: NDArray[np.int64] | None, gate: Gate) -> VerifyResult:
    """All images as one batch, whose answers are known."""
    return verify([(np.empty(0, np.uint8), labels)], lambda _: reference, lambda _: candidate, gate)


def _answers(side: Side, dataset: Dataset, batch: int, name: str, progress: Progress) -> Logits:
    low, high = side.batch
    size = max(low, min(batch, high))
    if 0 < len(dataset) % size < low:
        raise InputError(f"{len(dataset)} images do not divide into batches of {size}, of which {name} takes no fewer")
    run = side.make_runner(dataset.preprocessing)
    return np.concatenate([run(images) for images, _ in image_batches(dataset, size, label=name, progress=progress)])


def _top1(logits: Logits, labels: NDArray[np.int64] | None) -> float | None:
    return None if labels is None else float((logits.reshape(len(logits), -1).argmax(axis=1) == labels).mean())


@contextmanager
def _sides(
    request: StagesRequest, run: Run, checkpoint: Path, recipe: Recipe
) -> Iterator[list[tuple[str, str | None, Path]]]:
    """(name, what it was made from, path) of every stage."""
    module = load_module(checkpoint, request.factory).module
    with tempfile.TemporaryDirectory() as temporary:
        traced = Path(temporary) / "traced.onnx"
        save_onnx(export(module, ExportOptions(recipe.preprocessing.input_shape)), traced, force=False)
        yield [
            (PYTORCH, None, checkpoint),
            (TRACED, PYTORCH, traced),
            (FOLDED, TRACED, request.run / FOLDED_FILE),
            *((f"{one.name} ONNX", FOLDED, request.run / one.file) for one in run.graphs if one.file != FOLDED_FILE),
            *((one.name, _graph_of(one), request.run / "engines" / one.name) for one in run.engines),
        ]


def _graph_of(engine: Engine) -> str:
    """The graph that an engine was built from."""
    if engine.precision == "fp32":
        return FOLDED
    return f"{engine.precision}-{engine.flavour} ONNX" if engine.flavour else f"{engine.precision} ONNX"


def _read(folder: Path) -> Run:
    path = folder / RUN_NAME
    try:
        return read_run(json.loads(path.read_text(encoding="utf-8")), str(path))
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
