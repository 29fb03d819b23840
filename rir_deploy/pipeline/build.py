"""build-engine: a checkpoint or an ONNX file to an engine folder."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rir_deploy import __version__
from rir_deploy.artifacts import Provenance, atomic_folder, check_output, sha256_file
from rir_deploy.claim import claimed
from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.base import (
    GRAPH_NAME,
    BatchRange,
    BuildOptions,
    Built,
    TensorSpec,
    fit_batch,
    input_spec,
    output_specs,
)
from rir_deploy.engines.graph import model_precision
from rir_deploy.engines.manifest import Manifest, check_names, record_file, write_manifest
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import BackendError, UsageError
from rir_deploy.fold import fold
from rir_deploy.graph.batch import with_dynamic_batch
from rir_deploy.graph.equivalence import Equivalence
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx, write_provenance
from rir_deploy.pipeline.calibrate import CalibrationRequest, write_ranges
from rir_deploy.pipeline.evaluation import SearchRequest
from rir_deploy.pipeline.export import ExportRequest, export_model
from rir_deploy.pipeline.few_bits import check_few_bits
from rir_deploy.pipeline.lower import FLAVOURS, Lowered, Precision, PrecisionRequest, engine_options, lower_precision
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.realized import check_realized
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.pipeline.sources import choose_recipe
from rir_deploy.recipe import Recipe
from rir_deploy.staging import data_files

# The ranges an engine's graph was quantised or checked with, kept in its folder.
RANGES_NAME = "ranges.json"
# What --backend auto tries, in this order; the first that builds and runs here is taken.
AUTO_ORDER = tuple(name for name in ("tensorrt", "openvino", "onnxruntime") if name in BACKENDS)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    ``precision`` None takes an ONNX file as it is, and a checkpoint in FP32. ``batch`` None is 1 to 32, or the only one
    that the model has; a model of another batch is made dynamic. ``tensorrt`` is for its builder alone.
    ``command`` is recorded in the manifest: the line that builds the engine again.
    """

    source: Path
    backend: str = "auto"
    precision: Precision | None = None
    recipe: str | None = None
    factory: str | None = None
    calibration: CalibrationRequest = CalibrationRequest()
    search: SearchRequest | None = None
    keep: tuple[str, ...] = ()
    reduced_range: bool = False
    batch: BatchRange | None = None
    targets: tuple[str, ...] = ()
    tensorrt: TensorRtOptions = TensorRtOptions()
    fold: bool = True
    command: str = ""
    weights: str | None = None


@dataclass(frozen=True)
class EngineBuilt:
    """A finished engine folder.

    ``build_seconds`` is the backend's part of ``seconds``; ``warnings`` are what a user should know of the graph and of
    what the backend makes of it; ``fold_check`` is None where nothing was to be folded.
    """

    folder: Path
    manifest: Manifest
    lowered: Lowered
    build_seconds: float
    seconds: float
    warnings: tuple[str, ...] = ()
    fold_check: Equivalence | None = None

    def to_dict(self) -> dict[str, object]:
        manifest = self.manifest
        return {
            "engine": str(self.folder),
            "backend": manifest.backend,
            "backend_version": manifest.backend_version,
            "precision": manifest.precision,
            "flavour": self.lowered.flavour,
            **{key: self.lowered.to_dict()[key] for key in ("kept", "calibration", "sensitivity")},
            "fold_check": None if self.fold_check is None else self.fold_check.to_dict(),
            "warnings": list(self.warnings),
            "size_bytes": manifest.size_bytes,
            "targets": list(manifest.targets),
            "batch": dict(zip(("min", "opt", "max"), manifest.batch, strict=True)),
            "realized": dict(manifest.realized),
            "sha256": manifest.engine.sha256,
            "build_seconds": self.build_seconds,
            "seconds": self.seconds,
        }


def choose_backend(name: str) -> str:
    """``name``, or for "auto" the first backend that works here.

    Raises:
        BackendError: none does.
    """
    if name != "auto":
        get_backend(name)
        return name
    reasons = []
    for candidate in AUTO_ORDER:
        found = get_backend(candidate).availability()
        if found.can_build and found.can_run:
            return candidate
        reasons.append(f"{candidate}: {found.reason}")
    raise BackendError(f"no backend works here ({'; '.join(reasons)}); run doctor to see what is missing")


def build_engine(request: BuildRequest, output: Path, *, force: bool, progress: Progress = silent) -> EngineBuilt:
    """Build an engine with its manifest and the graph it was built from; nothing is left where anything fails.

    Raises:
        UsageError, InputError, BackendError, GateError: as the stages do.
    """
    if request.precision != "int8" and (request.keep or request.search is not None):
        raise UsageError("--keep and --max-drop say what INT8 leaves in float; they go with --int8")
    if request.precision != "int8" and request.reduced_range:
        raise UsageError("--reduced-range is about the weights of INT8; it goes with --int8")
    if request.precision in (None, "fp32") and request.calibration.is_given:
        raise UsageError("calibration images and ranges are for --int8 and --fp16; leave them out, or name a precision")
    check_output(output, force=force)
    with claimed(output):
        return _build(request, output, force, progress)


def _build(request: BuildRequest, output: Path, force: bool, progress: Progress) -> EngineBuilt:
    started = time.perf_counter()
    backend = get_backend(choose_backend(request.backend))
    options = BuildOptions(
        request.batch or BatchRange(), request.targets, request.tensorrt, _phases(backend.name, progress)
    )
    backend.check(request.precision, options)
    source = _graph(request, progress)
    graph = source.model
    check_names([input_spec(graph), *output_specs(graph)])
    batch = _batch(input_spec(graph), request.batch)
    options = replace(options, batch=batch)
    check_few_bits(graph, request.calibration.bits, backend.name)
    lowered = _lower(graph, request, backend.name, progress)
    check_few_bits(lowered.model, 8, backend.name)  # a range table brings weights of its own
    with atomic_folder(output, force=force) as folder:
        save_onnx(lowered.model, folder / GRAPH_NAME, force=False)
        if lowered.table is not None:
            write_ranges(lowered.tuned or lowered.table, folder / RANGES_NAME, lowered.options, force=False)
        progress(f"building for {backend.name}", 0, 1)
        building = time.perf_counter()
        built = backend.build(lowered.model, folder, options)
        built_in = time.perf_counter() - building
        float_convs = check_realized(lowered.precision, built, lowered.model)
        progress(f"building for {backend.name}", 1, 1)
        manifest = _manifest(request, batch, lowered.model, built, source.parents, folder)
        write_manifest(folder, manifest)
    warnings = (*source.warnings, *lowered.warnings, *([float_convs] if float_convs else ()))
    seconds = time.perf_counter() - started
    return EngineBuilt(output, manifest, lowered, built_in, seconds, warnings, source.check)


def changes_int8(request: BuildRequest) -> bool:
    """Whether it says what INT8 leaves in float, or how large its weights may be."""
    return bool(request.keep) or request.search is not None or request.reduced_range


def _batch(spec: TensorSpec, asked: BatchRange | None) -> BatchRange:
    """The batch sizes asked for; else the only one that the model has, or 1 to 32."""
    fixed = spec.shape[0]
    if asked is None and fixed is not None:
        return BatchRange(fixed, fixed, fixed)
    return fit_batch(spec, asked or BatchRange())


def _is_another(spec: TensorSpec, asked: BatchRange | None) -> bool:
    """Whether other batch sizes are asked for than the only one that the model has."""
    fixed = spec.shape[0]
    return fixed is not None and asked is not None and (asked.min, asked.max) != (fixed, fixed)


def _phases(name: str, progress: Progress) -> Progress:
    """A builder's own steps, under its name."""
    return lambda phase, done, total: progress(f"{name}: {phase}", done, total)


def _lower(model: ir.Model, request: BuildRequest, backend: str, progress: Progress) -> Lowered:
    """The graph in the precision asked for, quantised the way the backend computes in integers."""
    provenance = read_provenance(model)
    present = model_precision(model)
    if present != "fp32":
        if request.precision not in (None, present):
            raise UsageError(
                f"'{request.source}' is {present} already and cannot become {request.precision}; "
                "start from the FP32 model"
            )
        if request.calibration.is_given or changes_int8(request):
            raise UsageError(
                f"'{request.source}' is {present} already: leave out what says how to make it so (calibration, --keep, "
                "--max-drop, --reduced-range), or start from the FP32 model"
            )
        return Lowered(model, present)
    recipe = None if provenance is None or provenance.recipe is None else Recipe.from_dict(provenance.recipe)
    options = engine_options(FLAVOURS.get(backend, "tensorrt"), request.keep, request.reduced_range)
    wanted = PrecisionRequest(request.precision or "fp32", options, request.calibration, request.search)
    return lower_precision(model, recipe, wanted, progress)


@dataclass(frozen=True)
class _Source:
    """The graph to build from, the hashes of what it came from, and how its fold was checked."""

    model: ir.Model
    parents: dict[str, str]
    check: Equivalence | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        skipped = "" if self.check is None else self.check.skipped
        return (f"the folded graph was not checked against the original: {skipped}",) if skipped else ()


def _graph(request: BuildRequest, progress: Progress) -> _Source:
    if kind_of(request.source) == "engine":
        raise UsageError(f"'{request.source}' is an engine already; name the checkpoint or ONNX file to build from")
    if kind_of(request.source) == "checkpoint":
        exported = export_model(
            ExportRequest(request.source, request.recipe, request.factory, fold=request.fold, weights=request.weights),
            progress,
        )
        folded = exported.folded
        return _Source(exported.model, exported.provenance.parents, None if folded is None else folded.check)
    model, check = load_onnx(request.source), None
    if _is_another(input_spec(model), request.batch):
        model = with_dynamic_batch(model)
    recorded = read_provenance(model) or Provenance(tool=f"rir-deploy {__version__}")
    before = replace(recorded, precision=model_precision(model))
    parents = {**before.parents, "onnx": sha256_file(request.source)}
    recipe = before.recipe if request.recipe is None else choose_recipe(request.recipe, before.recipe).to_dict()
    stages = before.stages
    if request.fold and before.precision == "fp32":
        result = fold(model)
        model, stages = result.model, (*stages, "fold") if result.modified else stages
        check = result.check
    write_provenance(model, replace(before, stages=stages, parents=parents, recipe=recipe))
    return _Source(model, parents, check)


def _manifest(
    request: BuildRequest, batch: BatchRange, model: ir.Model, built: Built, parents: dict[str, str], folder: Path
) -> Manifest:
    provenance = read_provenance(model)
    extra = (*built.extra_files, *(file.name for file in data_files(folder / GRAPH_NAME)))
    return Manifest(
        backend=built.backend,
        backend_version=built.backend_version,
        precision=model_precision(model),
        engine=record_file(folder / built.file),
        graph=record_file(folder / GRAPH_NAME),
        input=input_spec(model),
        outputs=output_specs(model),
        parents=parents,
        recipe=None if provenance is None else provenance.recipe,
        batch=(batch.min, batch.opt, batch.max),
        extra=tuple(record_file(folder / name) for name in extra),
        ranges=record_file(folder / RANGES_NAME) if (folder / RANGES_NAME).exists() else None,
        targets=built.targets,
        gpu=built.gpu,
        options=dict(request.tensorrt.given),
        realized=dict(built.realized),
        host=_host(),
        command=request.command,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tool=f"rir-deploy {__version__}",
    )


def _host() -> dict[str, Any]:
    return {"system": platform.system(), "machine": platform.machine(), "python": platform.python_version()}
