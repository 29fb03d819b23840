"""From an FP32 graph to the graph of a precision: cast, or calibrated and quantised."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from rir_deploy import __version__
from rir_deploy.artifacts import Provenance, atomic_file, check_output_file, sha256_file
from rir_deploy.engines.graph import graph_precision
from rir_deploy.errors import InputError, UsageError, unknown_name
from rir_deploy.graph.opset import convert_opset
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx, write_provenance
from rir_deploy.pipeline.calibrate import (
    CalibrationRequest,
    calibrate,
    calibrate_int8,
    open_images,
    range_files,
    weights_path,
)
from rir_deploy.pipeline.evaluation import SearchRequest, open_evaluation
from rir_deploy.pipeline.few_bits import few_bits
from rir_deploy.pipeline.plausible import few_images
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sensitivity import Sensitivity, find_sensitivity, keep_too
from rir_deploy.pipeline.sources import choose_recipe
from rir_deploy.precision import KeptNode, to_fp16
from rir_deploy.quantize import QuantizeOptions, RangeTable, Tuned, quantize
from rir_deploy.quantize.chosen_on import ChosenOn, write_chosen_on
from rir_deploy.quantize.options import default_rest, quantized_opset
from rir_deploy.recipe import Recipe

# Among a model's parents: the images on which it was chosen what to keep in float. A proof needs others.
CHOSEN_ON = "evaluation images"

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
# The Q/DQ placement that each backend computes in integers.
FLAVOURS: dict[str, Literal["tensorrt", "cpu"]] = {
    "onnxruntime": "cpu",
    "onnxruntime-rtx": "tensorrt",
    "openvino": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
}


def engine_options(flavour: str, keep: tuple[str, ...] = (), reduced_range: bool = False) -> QuantizeOptions:
    """How a graph is quantised for an engine: what TensorRT does not compute in INT8 it computes in FP16."""
    return QuantizeOptions(flavour, reduced_range, keep, default_rest(flavour))  # type: ignore[arg-type]


@dataclass(frozen=True)
class PrecisionRequest:
    """What to make of an FP32 graph. ``calibration`` is read for INT8 and FP16, ``quantize`` and ``search`` for INT8.

    ``search`` ranks the layers, and keeps some in float where it holds a budget; None does neither. ``chosen_on`` are
    the images that what ``quantize`` pins was chosen on before.
    """

    precision: Precision = "fp32"
    quantize: QuantizeOptions = QuantizeOptions()
    calibration: CalibrationRequest = CalibrationRequest()
    search: SearchRequest | None = None
    chosen_on: ChosenOn | None = None

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
    tuned: Tuned | None = field(default=None, repr=False)
    options: QuantizeOptions = QuantizeOptions()
    sensitivity: Sensitivity | None = None

    def to_dict(self) -> dict[str, object]:
        table = self.table
        chosen = {} if self.tuned is None else self.tuned.to_dict()
        return {
            "precision": self.precision,
            "flavour": self.flavour,
            "quantized": list(self.quantized),
            "kept": [{"node": node.node, "reason": node.reason} for node in self.kept],
            "calibration": None if table is None else {"images": table.samples, "method": table.method, **chosen},
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_dict(),
            "warnings": list(self.warnings),
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the result."""
        few = None if self.table is None else few_images(self.table.samples)
        images = () if self.tuned is None else self.tuned.warnings
        budget = None if self.sensitivity is None else self.sensitivity.warning
        return (*images, *(one for one in (few, few_bits(self.model), budget) if one is not None))


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
    # Before calibration, since ranges are of the tensors that are quantised.
    model = convert_opset(model, quantized_opset(request.quantize, few_bits=request.calibration.has_few_bits))
    images, evaluation = None, None
    if request.search is not None:  # what is wrong with the images is said before the work
        images = open_images(model, recipe, request.calibration)
        evaluation = open_evaluation(recipe, request.search, images, progress)
    tuned = calibrate_int8(model, recipe, request.calibration, request.quantize, progress)
    options, sensitivity, chosen_on = request.quantize, None, request.chosen_on or tuned.table.chosen_on
    if evaluation is not None and chosen_on is not None:
        raise UsageError(
            f"'{request.calibration.table}' holds a choice that was made on a budget already; search by a table that "
            "was saved without --max-drop"
        )
    if images is not None:
        sensitivity = find_sensitivity(model, tuned, options, images, evaluation, progress)
        options = keep_too(options, (layer.node for layer in sensitivity.ranking[: sensitivity.kept]))
        chosen_on = sensitivity.chosen_on or chosen_on
    result = quantize(model, tuned.table, options, tuned.rounded)
    if sensitivity is not None:
        sensitivity = sensitivity.in_model(result.model)
    kept = {one.node: one.reason for one in result.asked}
    tuned = replace(tuned, table=replace(tuned.table, kept=kept, chosen_on=chosen_on))
    _record(model, result.model, f"quantize-{options.flavour}", "int8", chosen_on)
    return Lowered(
        result.model, "int8", options.flavour, result.kept, result.quantized, tuned.table, tuned, options, sensitivity
    )


def _fp16(model: ir.Model, recipe: Recipe | None, calibration: CalibrationRequest, progress: Progress) -> Lowered:
    """With images the activations are checked too; without, the weights alone."""
    if calibration.is_for_int8:
        raise UsageError("how ranges are cut and weights rounded is for --int8; FP16 only looks for what overflows")
    has_data = calibration.data is not None or calibration.table is not None
    if has_data and recipe is None:
        raise UsageError("the preprocessing of the calibration images is not known: name it with --recipe")
    has_data |= recipe is not None and calibration.use_recipe_data and "train" in recipe.data
    table = calibrate(model, recipe, calibration, progress) if recipe is not None and has_data else None
    result = to_fp16(model, ranges=None if table is None else table.max_abs())
    if graph_precision(result.model) == "fp32":
        some = "; ".join(f"{node.node}: {node.reason}" for node in result.kept[:3])
        raise InputError(f"no layer of the model can compute in FP16 ({some}): build it in FP32")
    _record(model, result.model, "fp16", "fp16")
    return Lowered(result.model, "fp16", None, result.kept, (), table)


def _record(before: ir.Model, after: ir.Model, stage: str, precision: str, chosen_on: ChosenOn | None = None) -> None:
    provenance = read_provenance(before) or Provenance(tool=f"rir-deploy {__version__}")
    parents, stages = dict(provenance.parents), (*provenance.stages, stage)
    if chosen_on is not None:
        parents[CHOSEN_ON] = chosen_on.sha256
        write_chosen_on(after, chosen_on)
    write_provenance(after, replace(provenance, stages=stages, precision=precision, parents=parents))


def quantize_file(
    source: Path,
    output: Path,
    request: PrecisionRequest,
    *,
    recipe: str | None = None,
    ranges: Path | None = None,
    sensitivity: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Lowered:
    """An ONNX file to a Q/DQ one; ``ranges`` and ``sensitivity`` are where the table and the ranking are written.

    All of the files appear, or none.

    Raises:
        UsageError, InputError, BackendError, GateError: as the stages do; then nothing is written.
    """
    outputs = [output, *([ranges, weights_path(ranges)] if ranges else []), *([sensitivity] if sensitivity else [])]
    for path in outputs:
        check_output_file(path, force=force)
    twice = next((path for i, path in enumerate(outputs) if path.absolute() in map(Path.absolute, outputs[:i])), None)
    if twice is not None:
        raise UsageError(f"'{twice}' would hold two files; choose different ones")
    model = load_onnx(source)
    before = read_provenance(model) or Provenance(tool=f"rir-deploy {__version__}")
    chosen = choose_recipe(recipe, before.recipe)
    write_provenance(
        model, replace(before, parents={**before.parents, "onnx": sha256_file(source)}, recipe=chosen.to_dict())
    )
    lowered = lower_precision(model, chosen, request, progress)
    beside: dict[Path, bytes] = {}
    if ranges is not None and lowered.table is not None:
        beside |= range_files(lowered.tuned or lowered.table, ranges, lowered.options)
    if sensitivity is not None and lowered.sensitivity is not None:
        beside[sensitivity] = (json.dumps(lowered.sensitivity.to_dict(), indent=1) + "\n").encode()
    with ExitStack() as stack:  # files are renamed into place in the opposite order: the model last
        save_onnx(lowered.model, stack.enter_context(atomic_file(output, force=force)), force=True)
        for path, data in beside.items():
            stack.enter_context(atomic_file(path, force=force)).write_bytes(data)
    return lowered
