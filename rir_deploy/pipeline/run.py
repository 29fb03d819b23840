"""run: all stages into one folder, resumable, with a record of every file."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy import __version__
from rir_deploy.artifacts import atomic_file
from rir_deploy.bench.machine import read_machine
from rir_deploy.claim import claimed_folder
from rir_deploy.pipeline.matrix import EngineSpec, GraphSpec, engines_of, graphs_of, unfolded
from rir_deploy.pipeline.plan import Plan
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.run_engines import make_comparison, make_engine, time_engines
from rir_deploy.pipeline.run_flips import make_pictures
from rir_deploy.pipeline.run_graphs import make_graph
from rir_deploy.pipeline.run_roofline import make_roofline
from rir_deploy.pipeline.run_stages import compare_run
from rir_deploy.pipeline.run_steps import RunSteps
from rir_deploy.pipeline.steps import RUN_NAME
from rir_deploy.report.schema import SCHEMA

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep


def run_plan(
    plan: Plan, folder: Path, *, report: bool = True, on_step: OnStep | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Carry a plan out in ``folder`` and write its report; the same call continues a run that was killed.

    Raises:
        GateError: a budget of accuracy that cannot be kept. A failed parity is no error here: it is recorded.
        UsageError, InputError, BackendError: as the stages do.
    """
    with claimed_folder(folder):
        record = _everything(RunSteps(plan, folder, on_step, progress))
        if report:
            from rir_deploy.report.write import write_report

            write_report(folder, force=True)
    return record


def _everything(run: RunSteps) -> dict[str, Any]:
    """Do what is not done yet, write ``run.json``, and return it."""
    checkpoint = run.checkpoint()
    export = run.export(checkpoint)
    graphs = [make_graph(run, spec) for spec in graphs_of(run.plan, run.backends)]
    engines = [make_engine(run, spec, checkpoint) for spec in engines_of(run.plan, run.backends)]
    traced = _traced(run, checkpoint) if export["fold"]["modified"] else None
    compared = [] if traced is None else traced["engines"]
    timed = [engine["name"] for engine in (*engines, *compared) if engine["status"] != "not built"]
    record = {
        "schema": SCHEMA,
        "tool": f"rir-deploy {__version__}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "passed": all(engine["status"] != "failed" for engine in engines),
        "machine": read_machine().to_dict(),
        "recipe": run.recipe.name,
        "data": run.dataset("test").source.name,
        "model": run.model(checkpoint, export),
        "export": {key: value for key, value in export.items() if key not in ("layout", "recipe", "accuracy")},
        "graphs": graphs,
        "calibration": run.calibration() if set(run.plan.precisions) - {"fp32"} else None,
        "engines": engines,
        "unfolded": traced,
        "pictures": make_pictures(run, engines),
        **compare_run(run, checkpoint, graphs, engines, kept_trace=traced is not None),
        "bench": time_engines(run, checkpoint, timed),
        "roofline": make_roofline(run, [*engines, *compared]),
        "files": run.folder.files(),
    }
    text = json.dumps(record, indent=1, sort_keys=True)
    with atomic_file(run.folder.path / RUN_NAME, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return dict(json.loads(text))


def _traced(run: RunSteps, checkpoint: Path) -> dict[str, Any] | None:
    """INT8 of the network as it was traced, to compare with: graphs and engines. It decides nothing."""
    specs = [spec for spec in graphs_of(run.plan, run.backends) if spec.precision == "int8"]
    if not specs or not run.plan.unfolded:
        return None
    run.export(checkpoint, folded=False)
    graphs = [make_graph(run, unfolded(spec)) for spec in (GraphSpec("fp32"), *specs)]
    engines = [spec for spec in engines_of(run.plan, run.backends) if spec.graph.precision == "int8"]
    compared = [EngineSpec(spec.backend, unfolded(spec.graph)) for spec in engines]
    return {"graphs": graphs, "engines": [make_comparison(run, spec, checkpoint) for spec in compared]}
