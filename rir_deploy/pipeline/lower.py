"""From an FP32 graph to the graph of a precision: cast, or calibrated and quantised."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from rir_deploy import __version__
from rir_deploy.artifacts import Provenance, atomic_file, check_output, sha256_file
from rir_deploy.errors import UsageError, unknown_name
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx, write_provenance
from rir_deploy.pipeline.calibrate import CalibrationRequest, calibrate
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sources import choose_recipe
from rir_deploy.precision import KeptNode, to_fp16
from rir_deploy.quantize import QuantizeOptions, RangeTable, quantize
from rir_deploy.recipe import Recipe

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
# The Q/DQ placement that each backend computes in integers.
FLAVOURS: dict[str, Literal["tensorrt", "cpu"]] = {
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
}


@dataclass(frozen=True)
class PrecisionRequest:
    """What to make of an FP32 graph. ``quantize`` is read for INT8 only, ``calibration`` for INT8 and FP16."""

    precision: Precision = "fp32"
    quantize: QuantizeOptions = QuantizeOptions()
    calibration: CalibrationRequest = CalibrationRequest()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class Lowered:
    """``kept`` are nodes that stay in a wider type; ``table`` is None where no ranges were needed."""

    model: ir.Model
    precision: str
    flavour: str | None = None
    kept: tuple[KeptNode, ...] = ()
    quantized: tuple[str, ...] = ()
    table: RangeTable | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, object]:
        table = self.table
        return {
            "precision": self.precision,
            "flavour": self.flavour,
            "quantized": list(self.quantized),
            "kept": [{"node": node.node, "reason": node.reason} for node in self.kept],
            "calibration": None if table is None else {"images": table.samples, "method": table.method},
        }


def lower_precision(
    model: ir.Model, recipe: Recipe | None, request: PrecisionRequest, progress: Progress = silent
) -> Lowered:
    """The graph of a precision, with its provenance written.

    Raises:
        UsageError: INT8 without data or without a recipe.
        InputError, BackendError: as the stages do.
    """
    if request.precision == "fp32":
        return Lowered(model, "fp32")
    if request.precision == "fp16":
        return _fp16(model, recipe, request.calibration, progress)
    if recipe is None:
        raise UsageError("INT8 needs the preprocessing of its calibration images: name it with --recipe")
    table = calibrate(model, recipe, request.calibration, progress)
    result = quantize(model, table, request.quantize)
    _record(model, result.model, f"quantize-{request.quantize.flavour}", "int8")
    return Lowered(result.model, "int8", request.quantize.flavour, result.kept, result.quantized, table)


def _fp16(model: ir.Model, recipe: Recipe | None, calibration: CalibrationRequest, progress: Progress) -> Lowered:
    """With images the activations are checked too; without, the weights alone."""
    has_data = calibration.data is not None or calibration.table is not None
    if has_data and recipe is None:
        raise UsageError("the preprocessing of the calibration images is not known: name it with --recipe")
    has_data |= recipe is not None and calibration.use_recipe_data and "train" in recipe.data
    table = calibrate(model, recipe, calibration, progress) if recipe is not None and has_data else None
    result = to_fp16(model, ranges=None if table is None else table.max_abs())
    _record(model, result.model, "fp16", "fp16")
    return Lowered(result.model, "fp16", None, result.kept, (), table)


def _record(before: ir.Model, after: ir.Model, stage: str, precision: str) -> None:
    provenance = read_provenance(before) or Provenance(tool=f"rir-deploy {__version__}")
    write_provenance(after, replace(provenance, stages=(*provenance.stages, stage), precision=precision))


def quantize_file(
    source: Path,
    output: Path,
    request: PrecisionRequest,
    *,
    recipe: str | None = None,
    ranges: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Lowered:
    """An ONNX file to a Q/DQ one; ``ranges`` is where the range table is written as well.

    Raises:
        UsageError, InputError, BackendError: as the stages do; then nothing is written.
    """
    for path in (output, ranges):
        if path is not None:
            check_output(path, force=force)
    if ranges is not None and ranges.absolute() == output.absolute():
        raise UsageError(f"the model and the range table cannot both be '{output}'; choose two files")
    model = load_onnx(source)
    before = read_provenance(model) or Provenance(tool=f"rir-deploy {__version__}")
    chosen = choose_recipe(recipe, before.recipe)
    write_provenance(
        model, replace(before, parents={**before.parents, "onnx": sha256_file(source)}, recipe=chosen.to_dict())
    )
    lowered = lower_precision(model, chosen, request, progress)
    if ranges is None or lowered.table is None:
        save_onnx(lowered.model, output, force=force)
        return lowered
    with atomic_file(ranges, force=force) as temporary:  # both files or neither
        temporary.write_text(lowered.table.to_json(), encoding="utf-8")
        save_onnx(lowered.model, output, force=force)
    return lowered


def write_ranges(table: RangeTable, path: Path, *, force: bool) -> None:
    with atomic_file(path, force=force) as temporary:
        temporary.write_text(table.to_json(), encoding="utf-8")
