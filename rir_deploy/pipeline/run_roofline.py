"""The roofline of a run: its CPU engines against what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rir_deploy.bench.machine import read_machine
from rir_deploy.pipeline.roofline import RooflineRequest, roofline_files
from rir_deploy.pipeline.roofline_measure import CPU_BACKENDS, machine_key
from rir_deploy.pipeline.run_steps import RunSteps

Record = dict[str, Any]


def make_roofline(run: RunSteps, engines: Sequence[Record]) -> Record | None:
    """The part "roofline" of the record; None where the plan leaves it out, or no engine runs on this CPU.

    Ceilings come from the user's cache, or are measured and kept there.
    """
    options = run.bench_options()
    names = [
        one["name"] for one in engines if one["backend"] in CPU_BACKENDS and one["status"] in ("verified", "failed")
    ]
    if options is None or not run.plan.bench.roofline or not names:
        return None
    machine = read_machine()
    inputs = {
        "options": options.to_dict(),
        "machine": machine_key(machine, options.threads or machine.cores),
        "engines": [sorted(run.folder.steps[f"engine {name}"].files.items()) for name in names],
    }
    paths = tuple(run.folder.path / "engines" / name for name in names)
    request = RooflineRequest(paths, options, run.plan.recipe)
    return run.step("roofline", inputs, [], lambda: run.local(roofline_files(request, run.progress)))
