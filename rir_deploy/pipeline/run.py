"""run: all stages into one folder, resumable, with a record of every file."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy import __version__
from rir_deploy.artifacts import atomic_file
from rir_deploy.bench.machine import read_machine
from rir_deploy.pipeline.matrix import engines_of, graphs_of
from rir_deploy.pipeline.plan import Plan
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.run_steps import RunSteps

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep

RUN_NAME = "run.json"
SCHEMA = 1


def run_plan(
    plan: Plan, folder: Path, *, report: bool = True, on_step: OnStep | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Carry a plan out in ``folder`` and write its report; the same call continues a run that was killed.

    Raises:
        UsageError, InputError, BackendError: as the stages do. A failed parity is no error here: it is recorded.
    """
    record = _everything(RunSteps(plan, folder, on_step, progress))
    if report:
        from rir_deploy.report.write import write_report

        write_report(folder, force=True)
    return record


def _everything(run: RunSteps) -> dict[str, Any]:
    """Do what is not done yet, write ``run.json``, and return it."""
    checkpoint = run.checkpoint()
    export = run.export(checkpoint)
    graphs = [run.graph(name, precision, flavour) for name, precision, flavour in graphs_of(run.plan, run.backends)]
    engines = [run.engine(spec, checkpoint) for spec in engines_of(run.plan, run.backends)]
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
        "bench": run.bench(checkpoint, engines),
        "files": run.folder.files(),
    }
    text = json.dumps(record, indent=1, sort_keys=True)
    with atomic_file(run.folder.path / RUN_NAME, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return dict(json.loads(text))
