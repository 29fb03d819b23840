"""The graphs of a run: each with its ranges, INT8 with what it was calibrated to and how much each layer hurts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.calibrate import (
    CalibrationRequest,
    calibrate,
    calibrate_int8,
    open_images,
    weights_path,
    write_ranges,
)
from rir_deploy.pipeline.lower import PrecisionRequest, engine_options, lower_precision
from rir_deploy.pipeline.matrix import GraphSpec
from rir_deploy.pipeline.run_steps import RunSteps, export_step
from rir_deploy.pipeline.sensitivity import find_sensitivity, keep_too
from rir_deploy.quantize import QuantizeOptions

Record = dict[str, Any]
# Of what is recorded of a ranking: one that was made in another form is made again.
_RANKING_FORM = 2


def make_graph(run: RunSteps, spec: GraphSpec) -> Record:
    """The graph of a precision, made after its FP32 graph was exported; described for the record.

    Raises:
        GateError: a budget of accuracy that cannot be kept.
        UsageError, InputError, BackendError: as the stages do.
    """
    step, kept, calibration, sensitivity = export_step(spec.folded), [], None, None
    if spec.precision != "fp32":
        ranges = _ranges(run, spec)
        if spec.precision == "int8":
            calibration = run.folder.steps[f"ranges {spec.name}"].result
            # The unfolded graph is there to be compared with: it is quantised whole.
            sensitivity = _sensitivity(run, spec, ranges) if spec.folded and run.plan.search is not None else None
        step, kept = f"graph {spec.name}", _lower(run, spec, ranges, sensitivity)["kept"]
    return {
        "name": spec.name,
        "file": spec.file,
        "precision": spec.precision,
        "flavour": spec.flavour,
        "size_bytes": (run.folder.path / spec.file).stat().st_size,
        "sha256": run.folder.sha256(step, spec.file),
        "kept": kept,
        "calibration": calibration,
        "sensitivity": None if sensitivity is None else {k: v for k, v in sensitivity.items() if k != "eval_sha256"},
    }


def _parent(run: RunSteps, spec: GraphSpec) -> tuple[Path, str]:
    """The FP32 graph that another is made from, and its hash."""
    file = GraphSpec("fp32", folded=spec.folded).file
    return run.folder.path / file, run.folder.sha256(export_step(spec.folded), file)


def _options(spec: GraphSpec, keep: Sequence[str] = ()) -> QuantizeOptions:
    return keep_too(engine_options(spec.flavour or "tensorrt"), keep)


def _ranges(run: RunSteps, spec: GraphSpec) -> str:
    """The range table that a graph is made with; its path in the run folder."""
    _, parent = _parent(run, spec)
    file = f"graphs/{spec.name}.ranges.json"
    inputs = {
        "graph": parent,
        "options": asdict(run.recipe.calibration),
        "data": run.dataset("calibration").source.fingerprint(),
        "flavour": spec.flavour,
    }
    files = [file, str(weights_path(Path(file)))] if spec.precision == "int8" else [file]
    run.step(f"ranges {spec.name}", inputs, files, lambda: _calibrate(run, spec, file), [parent])
    return file


def _calibrate(run: RunSteps, spec: GraphSpec, file: str) -> Record:
    model, path = load_onnx(_parent(run, spec)[0]), run.folder.path / file
    request = CalibrationRequest(data=run.source("calibration"))
    if spec.precision != "int8":
        table = calibrate(model, run.recipe, request, run.progress)
        write_ranges(table, path, force=True)
        return {"images": table.samples, "method": table.method}
    tuned = calibrate_int8(model, run.recipe, request, _options(spec), run.progress)
    write_ranges(tuned, path, _options(spec), force=True)
    return {"images": tuned.table.samples, **tuned.to_dict()}


def _sensitivity(run: RunSteps, spec: GraphSpec, ranges: str) -> Record:
    """Every layer with the damage that quantising it alone does, the worst first, and which of them stay in float."""
    search, evaluation = run.plan.search, run.evaluation
    inputs = {
        "graph": _parent(run, spec)[1],
        "ranges": run.folder.sha256(f"ranges {spec.name}", ranges),
        "data": run.dataset("calibration").source.fingerprint(),
        "max_drop": None if search is None else search.max_drop,
        "eval_data": None if evaluation is None else evaluation.dataset.source.fingerprint(),
        "form": _RANKING_FORM,
    }
    return run.step(f"sensitivity {spec.name}", inputs, [], lambda: _rank(run, spec, ranges))


def _rank(run: RunSteps, spec: GraphSpec, ranges: str) -> Record:
    assert run.plan.search is not None
    model, request = load_onnx(_parent(run, spec)[0]), CalibrationRequest(table=run.folder.path / ranges)
    tuned = calibrate_int8(model, run.recipe, request, _options(spec))
    images = open_images(model, run.recipe, CalibrationRequest(run.source("calibration"), run.folder.path / ranges))
    found = find_sensitivity(model, tuned, _options(spec), images, run.evaluation, run.progress)
    layers = [
        {
            **{key: getattr(one, key) for key in ("node", "block", "stream", "members", "sqnr_db")},
            "kept": place < found.kept,
        }
        for place, one in enumerate(found.ranking)
    ]
    return {
        "images": found.images,
        "max_drop": run.plan.search.max_drop,
        **found.outcome(),
        "layers": layers,
        "eval_sha256": None if found.chosen_on is None else found.chosen_on.sha256,
    }


def _lower(run: RunSteps, spec: GraphSpec, ranges: str, sensitivity: Record | None) -> Record:
    parents = [_parent(run, spec)[1], run.folder.sha256(f"ranges {spec.name}", ranges)]
    layers = [] if sensitivity is None else [layer["node"] for layer in sensitivity["layers"] if layer["kept"]]
    inputs = {
        "graph": parents[0],
        "ranges": parents[1],
        "precision": spec.precision,
        "flavour": spec.flavour,
        "keep": layers,
        "chosen_on": None if sensitivity is None else sensitivity["eval_sha256"],
    }

    def make() -> Record:
        table = CalibrationRequest(table=run.folder.path / ranges)
        chosen_on = None if sensitivity is None or run.evaluation is None else run.evaluation.chosen_on
        request = PrecisionRequest(spec.precision, _options(spec, layers), table, chosen_on=chosen_on)
        lowered = lower_precision(load_onnx(_parent(run, spec)[0]), run.recipe, request, run.progress)
        save_onnx(lowered.model, run.folder.path / spec.file, force=True)
        reasons: dict[str, str] = {}
        for node in lowered.kept:  # what the cast to FP16 leaves in FP32 is named a second time
            reasons.setdefault(node.node, node.reason)
        return {"kept": [{"node": node, "reason": reason} for node, reason in reasons.items()]}

    return run.step(f"graph {spec.name}", inputs, [spec.file], make, parents)
