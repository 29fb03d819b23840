"""Calibration: images in; the ranges of a model's tensors, or all that INT8 takes, out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.artifacts import atomic_file, sha256_json
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import input_spec
from rir_deploy.errors import InputError, UsageError, unknown_name
from rir_deploy.file_system import scratch_folder
from rir_deploy.onnx_file import graph_sha256, save_onnx
from rir_deploy.pipeline.batching import in_batches
from rir_deploy.pipeline.images import Images, choose_images
from rir_deploy.pipeline.plausible import FEW, check_images, repeated_images
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.quantize import (
    Candidate,
    QuantizeOptions,
    RangeOptions,
    RangeTable,
    Sources,
    Tuned,
    TuneOptions,
    activation_names,
    collect_ranges,
    mark_outputs,
    tune,
    unbounded_names,
)
from rir_deploy.quantize.ranges import Run
from rir_deploy.quantize.rounded_file import from_bytes, holds_few_bits, to_bytes
from rir_deploy.quantize.weights import Rounding
from rir_deploy.recipe import METHODS, CalibrationOptions, Recipe

# Images held back to choose by, as a share of the calibration images.
_HELD_BACK = 0.25


@dataclass(frozen=True)
class CalibrationRequest:
    """Where ranges and rounded weights come from: ``table`` (a file made before), or ``data``, or the recipe's own
    training images. Beside a table, ``data`` have to be the images that it was made on.

    What is left None is as the recipe says. ``use_recipe_data`` lets a recipe's own images stand in where no data is
    named. ``rounding``, ``equalize``, ``correct_bias``, ``bits`` and ``split_identity`` are those of `TuneOptions`;
    ``expect_top1`` is the accuracy, a fraction, that the FP32 model is known to reach.

    Raises:
        UsageError: a value that there is not, or two that exclude each other.
    """

    data: str | None = None
    table: Path | None = None
    samples: int | None = None
    method: str | None = None
    percentile: float | None = None
    use_recipe_data: bool = True
    rounding: Rounding | None = None
    equalize: bool = True
    correct_bias: bool = True
    bits: int = 8
    split_identity: bool = False
    expect_top1: float | None = None

    def __post_init__(self) -> None:
        measured = [self.samples, self.method, self.percentile, self.rounding, self.expect_top1]
        plain = self.equalize and self.correct_bias and self.bits == 8 and not self.split_identity
        if self.table is not None and (any(value is not None for value in measured) or not plain):
            raise UsageError(
                "--ranges is a table that was measured: it excludes all that says how to calibrate; --data beside it "
                "are the images it was made on"
            )
        if self.expect_top1 is not None and not 0 < self.expect_top1 <= 1:
            raise UsageError(f"--expect-top1 {100 * self.expect_top1:g} is no percentage: over 0, up to 100")
        if self.method is not None and self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if self.method not in (None, "percentile") and self.percentile is not None:
            raise UsageError("--percentile goes with --method percentile")
        if self.percentile is not None and not 50 < self.percentile <= 100:
            raise UsageError(f"--percentile {self.percentile:g} is no share to cut at: over 50, up to 100")

    @property
    def is_given(self) -> bool:
        """Whether anything was asked for beside what the recipe says."""
        return self != CalibrationRequest(use_recipe_data=self.use_recipe_data)

    @property
    def has_few_bits(self) -> bool:
        """Whether weights of fewer than 8 bits are asked for, or lie beside the table."""
        if self.table is None or not weights_path(self.table).is_file():
            return self.bits < 8
        return holds_few_bits(_read_weights(self.table))

    @property
    def is_for_int8(self) -> bool:
        """Whether it says something that means nothing where only the ranges are wanted."""
        return self != CalibrationRequest(self.data, self.table, self.samples, use_recipe_data=self.use_recipe_data)


def calibrate(model: ir.Model, recipe: Recipe, request: CalibrationRequest, progress: Progress = silent) -> RangeTable:
    """The extremes of every tensor of a model: read and checked against it, or measured.

    Raises:
        UsageError: there is neither data nor a table.
        InputError: a table of another model, recipe or data; data that cannot be used (too few, one class).
        BackendError: ONNX Runtime is not installed.
    """
    if request.table is not None:
        return _given(request.table, model, recipe, request)
    images = open_images(model, recipe, request)
    with open_session(model, activation_names(model)) as run:
        batches = images.batches("calibrating", progress)
        table = collect_ranges(batches, run, input_spec(model).name, images.sources, RangeOptions())
    return replace(table, samples=len(images.indices))


def calibrate_int8(
    model: ir.Model,
    recipe: Recipe,
    request: CalibrationRequest,
    quantization: QuantizeOptions,
    progress: Progress = silent,
) -> Tuned:
    """Ranges, rounded weights and biases for INT8: read and checked against the model, or made.

    Raises:
        UsageError, InputError, BackendError: as `calibrate` does.
    """
    if request.table is not None:
        table = _given(request.table, model, recipe, request)
        if table.weights_sha256 is None:
            return Tuned(table, {}, Candidate(table.method, "nearest", bool(table.exponents)))
        rounded = from_bytes(_read_weights(request.table), table.weights_sha256, quantization)
        return Tuned(table, rounded, Candidate(table.method, "given", bool(table.exponents)))
    images = open_images(model, recipe, request)
    warnings = check_images(model, images.dataset, images.indices, request.expect_top1, open_session)
    repeated = repeated_images(images.dataset, images.indices)
    warnings = warnings if repeated is None else (*warnings, repeated)
    rounding = request.rounding or "gptq"
    ways = request.equalize, request.correct_bias, request.bits, request.split_identity
    wanted = TuneOptions(images.options.method, images.options.percentile, rounding, *ways)
    fit, held_back = images.split(_HELD_BACK) if len(images.indices) >= FEW else (images, images)
    tuned = tune(
        model,
        lambda label: fit.batches(label, progress),
        lambda label: held_back.batches(label, progress),
        open_session,
        images.sources,
        wanted,
        quantization,
    )
    sha256 = hashlib.sha256(to_bytes(tuned.rounded, quantization)).hexdigest()
    table = replace(tuned.table, weights_sha256=sha256, samples=len(images.indices))
    return replace(tuned, table=table, warnings=warnings)


def range_files(
    tuned: Tuned | RangeTable, path: Path, quantization: QuantizeOptions = QuantizeOptions()
) -> dict[Path, bytes]:
    """The table at ``path`` and, beside it under the suffix .safetensors, the rounded weights that belong to it."""
    table = tuned.table if isinstance(tuned, Tuned) else tuned
    files = {path: table.to_json().encode()}
    if isinstance(tuned, Tuned) and table.weights_sha256 is not None:
        files[weights_path(path)] = to_bytes(tuned.rounded, quantization)
    return files


def write_ranges(
    tuned: Tuned | RangeTable, path: Path, quantization: QuantizeOptions = QuantizeOptions(), *, force: bool
) -> None:
    """Write `range_files`: both, or neither."""
    with ExitStack() as stack:
        for file, data in range_files(tuned, path, quantization).items():
            stack.enter_context(atomic_file(file, force=force)).write_bytes(data)


def weights_path(table: Path) -> Path:
    """Where the rounded weights of a range table lie."""
    return table.with_suffix(".safetensors")


def open_images(model: ir.Model, recipe: Recipe, request: CalibrationRequest) -> Images:
    """The images that a request names, or else the recipe's own; with a table, those that it was made on.

    Raises:
        UsageError: there are none.
        InputError: they cannot be used (too few, one class), or are not those of the table.
    """
    if request.data is None and not (request.use_recipe_data and "train" in recipe.data):
        if request.table is not None:
            raise UsageError(f"name the images that '{request.table}' was made on with --data")
        raise UsageError("INT8 needs calibration images: name some with --data, or a range table with --ranges")
    options = _options(recipe.calibration, request)
    dataset = open_dataset(request.data, recipe, "train")
    sources = Sources(graph_sha256(model), sha256_json(recipe.to_dict()), dataset.source.fingerprint())
    if request.table is not None:
        table = _read(request.table, model, recipe)
        table.check(sources.model_sha256, sources.recipe_sha256, sources.data_sha256)
        options = replace(options, samples=table.samples)
    spec = input_spec(model)
    indices = choose_images(dataset, options)
    return Images(dataset, indices, spec.dtype == "uint8", options, sources, spec.shape[0])


@contextmanager
def open_session(model: ir.Model, names: tuple[str, ...]) -> Iterator[Run]:
    """A model in ONNX Runtime, giving the tensors ``names`` beside its outputs.

    Infinities that a tensor holds by design are given as its largest or smallest finite number: it ranges without them.
    A model of a fixed batch takes any number of images.
    """
    unbounded = unbounded_names(model).intersection(names)
    with scratch_folder() as folder:
        path = folder / "observed.onnx"
        save_onnx(mark_outputs(model, names) if names else model, path, force=False)
        with get_backend("onnxruntime").load(path) as session:
            fixed = session.input.shape[0]
            run = session.run if fixed is None else in_batches(session.run, fixed, fixed)
            yield lambda batch: {
                name: _bounded(array) if name in unbounded else array for name, array in run(batch).items()
            }


def _bounded(array: NDArray[np.generic]) -> NDArray[np.generic]:
    finite = array[np.isfinite(array)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    return np.where(np.isnan(array), array, np.clip(array, low, high))


def _options(given: CalibrationOptions, request: CalibrationRequest) -> CalibrationOptions:
    return CalibrationOptions(
        samples=given.samples if request.samples is None else request.samples,
        seed=given.seed,
        percentile=given.percentile if request.percentile is None else request.percentile,
        method=given.method if request.method is None else request.method,  # type: ignore[arg-type]
    )


def _given(path: Path, model: ir.Model, recipe: Recipe, request: CalibrationRequest) -> RangeTable:
    """A table made before, checked against the images where some are named."""
    if request.data is not None:
        open_images(model, recipe, request)
    return _read(path, model, recipe)


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


def _read_weights(table: Path) -> bytes:
    path = weights_path(table)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no '{path}' with the rounded weights of '{table}'; put the two together") from error
    except OSError as error:
        raise InputError(f"the rounded weights '{path}' cannot be read; make them again") from error
