"""demo: the whole job on the digits that ship with scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy.engines.tensorrt_gpu import NoGpu, probe_gpu
from rir_deploy.errors import BackendError, GateError
from rir_deploy.pipeline.plan import BenchPlan, Plan
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.run import run_plan

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep

# Batch 1 is what an edge device sees; short, since every contender pays for a process of its own.
PLAN = Plan("digits", bench=BenchPlan(batches=(1,), duration_s=0.5, rounds=1))
# What the recipe reaches with room to spare; a demo that trains worse is broken.
MIN_TOP1 = 0.97


def run_demo(folder: Path, on_step: OnStep | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Train, export, fold, cast and quantise, build for every backend that is there, verify, time, and report.

    Returns:
        The run's record, as in its ``run.json``.

    Raises:
        BackendError: torch is not installed.
        GateError: the training fell short.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise BackendError('torch is not installed; run: python -m pip install "rir-deploy[host]"') from error
    # Where there is a GPU, engines are built for it; where there is none, for one that many have.
    plan = replace(PLAN, targets=("sm89",)) if isinstance(probe_gpu(), NoGpu) else PLAN
    record = run_plan(plan, folder, on_step=on_step, progress=progress)
    top1 = record["model"]["recorded_top1"]
    if top1 < MIN_TOP1:
        raise GateError(f"the demo trained to {top1:.2%}, under {MIN_TOP1:.0%}; report it with doctor's output")
    return record
