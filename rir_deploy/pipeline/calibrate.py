"""Calibration: images in, the ranges of a model's tensors out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.artifacts import sha256_json
from rir_deploy.data.dataset import Dataset
from rir_deploy.data.sampling import choose
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import input_spec
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import graph_sha256, save_onnx
from rir_deploy.pipeline.progress import Progress, silent, tracked
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.quantize import RangeOptions, RangeTable, Sources, activation_names, collect_ranges, mark_outputs
from rir_deploy.recipe import CalibrationOptions, Recipe

BATCH = 32


@dataclass(frozen=True)
class CalibrationRequest:
    """Where ranges come from: ``table`` (a file made before), or ``data``, or the recipe's own training images.

    What is left None is as the recipe says. ``use_recipe_data`` lets a recipe's own images stand in where no data is
    named.
    """

    data: str | None = None
    table: Path | None = None
    samples: int | None = None
    method: str | None = None
    percentile: float | None = None
    use_recipe_data: bool = True

    def __post_init__(self) -> None:
        measured = [self.data, self.samples, self.method, self.percentile]
        if self.table is not None and any(value is not None for value in measured):
            raise UsageError(
                "--ranges is a table that was measured: it excludes --data, --samples, --method, --percentile"
            )
        if self.method == "minmax" and self.percentile is not None:
            raise UsageError("--percentile goes with --method percentile")

    @property
    def is_given(self) -> bool:
        """Whether anything was asked for beside what the recipe says."""
        return any(x is not None for x in (self.data, self.table, self.samples, self.method, self.percentile))


def calibrate(model: ir.Model, recipe: Recipe, request: CalibrationRequest, progress: Progress = silent) -> RangeTable:
    """The range table of a model: read and checked against it, or measured.

    Raises:
        UsageError: there is neither data nor a table.
        InputError: a table made with another model or recipe; data that cannot be used (too few images, one class).
        BackendError: ONNX Runtime is not installed.
    """
    if request.table is not None:
        return _read(request.table, model, recipe)
    if request.data is None and not (request.use_recipe_data and "train" in recipe.data):
        raise UsageError("INT8 needs calibration images: name some with --data, or a range table with --ranges")
    options = _options(recipe.calibration, request)
    dataset = open_dataset(request.data, recipe, "train")
    indices = _samples(dataset, options)
    sources = Sources(graph_sha256(model), sha256_json(recipe.to_dict()), dataset.source.fingerprint())
    ranges = RangeOptions(options.method, options.percentile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        save_onnx(mark_outputs(model, activation_names(model)), path, force=False)
        with get_backend("onnxruntime").load(path) as session:
            batches = _inputs(model, dataset, indices, progress)
            return collect_ranges(batches, session.run, input_spec(model).name, sources, ranges)


def _options(given: CalibrationOptions, request: CalibrationRequest) -> CalibrationOptions:
    return CalibrationOptions(
        samples=given.samples if request.samples is None else request.samples,
        seed=given.seed,
        percentile=given.percentile if request.percentile is None else request.percentile,
        method=given.method if request.method is None else request.method,  # type: ignore[arg-type]
    )


def _samples(dataset: Dataset, options: CalibrationOptions) -> NDArray[np.int64]:
    """Images chosen by seed, balanced over the classes."""
    indices = choose(dataset.labels, len(dataset), options.samples, options.seed)
    if dataset.labels is not None and len(np.unique(dataset.labels[indices])) < 2:
        raise InputError(
            f"the calibration images of '{dataset.source.name}' are all of one class: ranges found on them hold for no "
            "other; name images of all classes"
        )
    return indices


def _inputs(
    model: ir.Model, dataset: Dataset, indices: NDArray[np.int64], progress: Progress
) -> Iterator[NDArray[np.generic]]:
    raw = input_spec(model).dtype == "uint8"
    batches = dataset.batches(BATCH, indices)
    for batch in tracked(batches, "calibrating", -(-len(indices) // BATCH), progress):
        yield batch.images if raw else batch.tensor(dataset.preprocessing)


def _read(path: Path, model: ir.Model, recipe: Recipe) -> RangeTable:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no range table '{path}'; make one with quantize --save-ranges") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the range table '{path}' is not readable text; make it again") from error
    table = RangeTable.from_json(text)
    table.check(graph_sha256(model), sha256_json(recipe.to_dict()))
    return table
