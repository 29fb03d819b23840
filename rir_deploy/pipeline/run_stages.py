"""Where a run's losses enter: every stage against PyTorch, every graph layer by layer, and a block as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rir_deploy.artifacts import sha256_file
from rir_deploy.file_system import scratch_folder
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.block_graph import block_graphs
from rir_deploy.pipeline.checkpoints import trace
from rir_deploy.pipeline.layers import EDGES, compare_layers, look_into, open_graph
from rir_deploy.pipeline.matrix import GraphSpec
from rir_deploy.pipeline.run_steps import RunSteps
from rir_deploy.pipeline.sides import open_side
from rir_deploy.pipeline.stage_table import FOLDED_FILE, Stages, compare_stages, graph_stage, stages_in
from rir_deploy.pipeline.views import open_views

Record = dict[str, Any]
_FIGURES = ("passed", "failures", "agreement", "top1_drop", "max_abs_error", "sqnr_db")
_LAYER = ("node", "block", "stream", "sqnr_db", "max_abs_error", "own_sqnr_db", "own_error", "verdict")


def compare_run(
    run: RunSteps, checkpoint: Path, graphs: Sequence[Record], engines: Sequence[Record], *, kept_trace: bool
) -> Record:
    """The parts "stages", "layers" and "block" of the record; None each where the plan leaves them out.

    ``kept_trace``: the run has the graph as it was traced; where it has not, the checkpoint is exported again.
    """
    if not run.plan.stages:
        return {"stages": None, "layers": None, "block": None}
    inputs = {
        "checkpoint": sha256_file(checkpoint),
        "data": run.dataset("test").source.fingerprint(),
        "graphs": [[one["name"], one["sha256"]] for one in graphs],
        "engines": [sorted(run.folder.steps[f"engine {one['name']}"].files.items()) for one in engines],
        "can_run": [[one["name"], one["status"]] for one in engines],
    }
    return run.step("stages", inputs, [], lambda: run.local(_compare(run, checkpoint, graphs, engines, kept_trace)))


def _compare(
    run: RunSteps, checkpoint: Path, graphs: Sequence[Record], engines: Sequence[Record], kept_trace: bool
) -> Record:
    folder, factory, weights = run.folder.path, run.plan.factory, run.plan.weights
    with scratch_folder() as temporary:
        traced = folder / GraphSpec("fp32", folded=False).file
        if not kept_trace:
            traced = temporary / "traced.onnx"
            save_onnx(trace(checkpoint, factory, run.recipe.preprocessing.input_shape, weights), traced, force=True)
        files = [(_stage_of(one), one["file"]) for one in graphs]
        names = [(one["name"], _stage_of(one)) for one in engines]
        made = stages_in(folder, checkpoint, traced, files, names)
        model = load_onnx(traced)
        stages = compare_stages(
            made, run.dataset("test"), run.recipe.name, factory=factory, weights=weights, progress=run.progress
        )
        return {
            "stages": _stages_record(stages),
            "layers": _layers(run, checkpoint, model, graphs),
            "block": block_graphs(model, load_onnx(folder / FOLDED_FILE)),
        }


def _stage_of(record: Record) -> str:
    return graph_stage(record["precision"], record["flavour"])


def _stages_record(stages: Stages) -> Record:
    rows = []
    for row in stages.rows:
        whole = row.to_dict()
        for key in ("against_pytorch", "against_parent"):
            figures = whole[key]
            assert figures is None or isinstance(figures, dict)
            whole[key] = None if figures is None else {name: figures[name] for name in _FIGURES}
        top1 = stages.top1 if row.against is None else row.against.accuracy.candidate_top1
        keys = ("name", "made_from", "precision", "runs_on", "against_pytorch", "against_parent")
        rows.append({**{key: whole[key] for key in keys}, "simulation": whole["simulation"] is not None, "top1": top1})
    return {"images": stages.images, "rows": rows}


def _layers(run: RunSteps, checkpoint: Path, traced: ir.Model, graphs: Sequence[Record]) -> list[Record]:
    """Every graph's feature maps against those of the trace."""
    found, factory = [], run.plan.factory
    with open_side(checkpoint, model=factory, weights=run.plan.weights) as reference:
        for one in graphs:
            path = run.folder.path / one["file"]
            with open_side(path) as side:
                views = open_views(run.source("test"), run.plan.recipe, reference, side)
                left = look_into(checkpoint, reference, traced, views.reference.preprocessing)
                right = open_graph(path, side, views.candidate, factory)
                report = compare_layers(left, right, views, one["precision"], run.progress)
            rows = [row.to_dict() for row in report.rows if row.block not in EDGES]  # stages say that of all images
            kept = [{key: row[key] for key in _LAYER} for row in rows]
            found.append({"graph": one["name"], "images": report.images, "note": report.note, "rows": kept})
    return found
