"""export: a checkpoint to an ONNX graph, folded, checked against PyTorch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from rir_deploy import __version__
from rir_deploy.artifacts import Provenance, as_share, check_output, sha256_file
from rir_deploy.embed import embed_preprocessing
from rir_deploy.engines import get_backend
from rir_deploy.errors import GateError, InputError
from rir_deploy.export import DEFAULT_OPSET, ExportOptions, export
from rir_deploy.file_system import scratch_folder
from rir_deploy.fold import FoldOptions, FoldResult, Work, fold, measure_work
from rir_deploy.onnx_file import save_onnx, write_provenance
from rir_deploy.pipeline.checkpoints import LoadedModule, load_module
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import module_runner, session_runner
from rir_deploy.pipeline.sources import Batches, choose_recipe, image_batches, noise_batches, open_dataset
from rir_deploy.recipe import Recipe
from rir_deploy.verify import GATES, VerifyResult, verify

# Images the exported graph is checked on; the last batch is small on purpose, the batch is dynamic.
CHECK_IMAGES, CHECK_BATCH = 100, 32


@dataclass(frozen=True)
class ExportRequest:
    """What to export and how. ``data`` are images for the check; without it, the recipe's own, or random pixels.

    ``weights`` chooses among several sets of weights in a checkpoint: "model", "ema" or a key.
    """

    checkpoint: Path | None
    recipe: str | None = None
    factory: str | None = None
    image_size: tuple[int, int] | None = None
    data: str | None = None
    opset: int = DEFAULT_OPSET
    fold: bool = True
    embed: bool = False
    check: bool = True
    weights: str | None = None


@dataclass(frozen=True)
class Exported:
    """``check`` is None where it was asked to be left out; ``checked_on`` says on what it ran."""

    model: ir.Model
    provenance: Provenance
    recipe: Recipe
    layout: str
    parameters: int
    accuracy: dict[str, Any] | None
    work: Work
    folded: FoldResult | None
    check: VerifyResult | None
    checked_on: str
    seconds: float
    weights: str | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "layout": self.layout,
            "parameters": self.parameters,
            "weights": self.weights,
            "accuracy": self.accuracy,
            "recipe": self.recipe.name,
            "opset": self.model.graph.opset_imports.get("", 0),
            "work": self.work.to_dict(),
            "fold": None if self.folded is None else self.folded.to_dict(),
            "check": None if self.check is None else {"on": self.checked_on, **self.check.to_dict()},
            "seconds": self.seconds,
        }


def export_file(request: ExportRequest, output: Path, *, force: bool, progress: Progress = silent) -> Exported:
    """`export_model`, written to ``output``; nothing is written where anything fails."""
    check_output(output, force=force)
    exported = export_model(request, progress)
    save_onnx(exported.model, output, force=force)
    return exported


def export_model(request: ExportRequest, progress: Progress = silent) -> Exported:
    """Trace, fold and check a model.

    Raises:
        UsageError: no checkpoint, no recipe.
        InputError: the checkpoint or the model cannot be used.
        BackendError: torch, the exporter or ONNX Runtime is not installed.
        GateError: the graph does not answer as the module does.
    """
    started = time.perf_counter()
    progress("loading", 0, 4)
    loaded = load_module(request.checkpoint, request.factory, request.image_size, request.weights)
    recipe = choose_recipe(request.recipe, loaded.recipe)
    shape = recipe.preprocessing.input_shape
    if loaded.input_shape is not None and loaded.input_shape != shape:
        raise InputError(
            f"the model takes images of {_words(loaded.input_shape)} but the recipe '{recipe.name}' makes "
            f"{_words(shape)}; choose another recipe or pass --image-size"
        )
    progress("tracing", 1, 4)
    model = export(loaded.module, ExportOptions(shape, request.opset))
    _check_classes(model, recipe)
    stages = ["export"]
    progress("folding", 2, 4)
    folded = fold(model, FoldOptions(check=request.check)) if request.fold else None
    if folded is not None:
        model = folded.model
        stages.append("fold")
    if request.embed:
        model = embed_preprocessing(model, recipe.preprocessing)
        stages.append("embed-preprocessing")
    provenance = _provenance(request, recipe, stages, loaded)
    write_provenance(model, provenance)
    progress("checking", 3, 4)
    check, checked_on = _check(loaded, model, recipe, request.data) if request.check else (None, "")
    progress("checking", 4, 4)
    work = folded.after if folded is not None else measure_work(model)
    seconds = time.perf_counter() - started
    return Exported(
        model,
        provenance,
        recipe,
        loaded.layout,
        sum(parameter.numel() for parameter in loaded.module.parameters()),
        loaded.accuracy,
        work,
        folded,
        check,
        checked_on,
        seconds,
        loaded.weights,
    )


def _check_classes(model: ir.Model, recipe: Recipe) -> None:
    """A recipe of another number of classes would name the wrong ones."""
    shape = model.graph.outputs[0].shape
    logits = shape[1] if shape is not None and len(shape) == 2 else None
    if isinstance(logits, int) and logits != len(recipe.classes):
        raise InputError(
            f"the model has {logits} outputs but the recipe '{recipe.name}' has {len(recipe.classes)} classes; "
            "choose the recipe it was trained with"
        )


def _provenance(request: ExportRequest, recipe: Recipe, stages: list[str], loaded: LoadedModule) -> Provenance:
    parents = {} if request.checkpoint is None else {"checkpoint": sha256_file(request.checkpoint)}
    tool = f"rir-deploy {__version__}"
    return Provenance(tuple(stages), "fp32", parents, recipe.to_dict(), tool, _recorded_top1(loaded), loaded.weights)


def _recorded_top1(loaded: LoadedModule) -> float | None:
    try:
        return None if loaded.accuracy is None else as_share(loaded.accuracy.get("top1"))
    except ValueError as error:
        raise InputError(f"the checkpoint records an accuracy that is none ({error}); save it again") from error


def _check(loaded: LoadedModule, model: ir.Model, recipe: Recipe, data: str | None) -> tuple[VerifyResult, str]:
    """Compare graph and module, on real images where there are any."""
    batches, checked_on = _check_batches(recipe, data)
    with scratch_folder() as folder:
        path = folder / "check.onnx"
        save_onnx(model, path, force=False)
        with get_backend("onnxruntime").load(path) as session:
            candidate = session_runner(session, recipe.preprocessing)
            reference = module_runner(loaded.module, recipe.preprocessing)
            result = verify(batches, reference, candidate, GATES["fp32"])
    if not result.passed:
        raise GateError(
            f"the exported graph does not answer as the PyTorch model does on {checked_on}: "
            f"{'; '.join(result.failures)}; export with --no-fold to see which step is at fault, and report it"
        )
    return result, checked_on


def _check_batches(recipe: Recipe, data: str | None) -> tuple[Batches, str]:
    if data is None and "test" not in recipe.data:
        return noise_batches(recipe, CHECK_IMAGES), f"{CHECK_IMAGES} images of random pixels"
    dataset = open_dataset(data, recipe, "test")
    # Spread over the whole set: folders list one class after the other.
    indices = np.unique(np.linspace(0, len(dataset) - 1, CHECK_IMAGES).astype(np.int64))
    return image_batches(dataset, CHECK_BATCH, indices), f"{len(indices)} images of {dataset.source.name}"


def _words(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} pixels in {channels} channel{'s' if channels > 1 else ''}"
