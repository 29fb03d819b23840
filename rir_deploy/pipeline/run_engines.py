"""The engines of a run: built, held against the checkpoint, timed side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines import get_backend
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.matrix import EngineSpec, reason_of, rebuild_command, targets_of
from rir_deploy.pipeline.run_flips import FLIPS, with_flips
from rir_deploy.pipeline.run_steps import RunSteps
from rir_deploy.pipeline.sides import runnable
from rir_deploy.pipeline.verify import VerifyRequest, verify_files

Record = dict[str, Any]


def make_engine(run: RunSteps, spec: EngineSpec, checkpoint: Path) -> Record:
    """Build an engine of a graph that is there and hold it against the checkpoint; described for the record."""
    output = f"engines/{spec.name}"
    built = _built(run, spec, output)
    missing = runnable(spec.backend, tuple(built["targets"]))
    checks = {"engine": sorted(run.folder.steps[f"engine {spec.name}"].files.items()), "can_run": missing is None}
    verified = _verified(run, f"verify {spec.name}", output, checks, checkpoint)
    return {
        **{key: built[key] for key in ("backend", "backend_version", "precision", "size_bytes", "targets")},
        **{key: built[key] for key in ("realized", "seconds")},
        "name": spec.name,
        "flavour": spec.graph.flavour,
        "status": "failed" if not verified["passed"] else "verified" if missing is None else "built, not run",
        "reason": reason_of(spec, missing),
        "verify": verified,
    }


def make_comparison(run: RunSteps, spec: EngineSpec, checkpoint: Path) -> Record:
    """An engine to compare others with, as `make_engine` makes it; where it could not run here its graph alone is held
    against the checkpoint, since an engine that is neither shipped nor timed is not worth its build.
    """
    missing = runnable(spec.backend, targets_of(run.plan, spec.backend))
    if missing is None:
        return make_engine(run, spec, checkpoint)
    graph = run.folder.path / spec.graph.file
    name = f"verify {spec.graph.name}"  # one proof for all backends of its flavour
    verified = _verified(run, name, spec.graph.file, {"graph": sha256_file(graph)}, checkpoint)
    runs_on = f"simulation: the {spec.graph.precision} graph, in {verified['candidate']['runs_on']}"
    return {
        "name": spec.name,
        "backend": spec.backend,
        "backend_version": get_backend(spec.backend).availability().version or "",
        "precision": spec.graph.precision,
        "flavour": spec.graph.flavour,
        "size_bytes": None,
        "targets": [],
        "seconds": None,
        "realized": {},
        "status": "not built",
        "reason": reason_of(spec, missing),
        "verify": {**verified, "simulation": True, "candidate": {**verified["candidate"], "runs_on": runs_on}},
    }


def _built(run: RunSteps, spec: EngineSpec, output: str) -> Record:
    graph, batch, targets = run.folder.path / spec.graph.file, run.plan.batch, targets_of(run.plan, spec.backend)
    parent = sha256_file(graph)
    inputs = {
        "graph": parent,
        "backend": spec.backend,
        "version": get_backend(spec.backend).availability().version,
        "batch": [batch.min, batch.opt, batch.max],
        "targets": list(targets),
    }
    command = rebuild_command(spec, run.plan, output)
    request = BuildRequest(graph, spec.backend, batch=batch, targets=targets, command=command)
    path = run.folder.path / output
    return run.step(
        f"engine {spec.name}",
        inputs,
        [output],
        lambda: build_engine(request, path, force=True, progress=run.progress).to_dict(),
        [parent],
    )


def _verified(run: RunSteps, name: str, candidate: str, checks: Record, checkpoint: Path) -> Record:
    """``candidate``, a path in the run folder, against the checkpoint; ``checks`` are the inputs beside the data."""
    request = VerifyRequest(
        checkpoint,
        run.folder.path / candidate,
        data=run.source("test"),
        recipe=run.plan.recipe,
        factory=run.plan.factory,
        weights=run.plan.weights,
        simulate=True,
    )
    inputs = {
        **checks,
        "data": run.dataset("test").source.fingerprint(),
        "checkpoint": sha256_file(checkpoint),
        "flips": FLIPS,
        **run.weights,
    }
    return run.step(name, inputs, [], lambda: run.local(with_flips(verify_files(request, run.progress))))


def time_engines(run: RunSteps, checkpoint: Path, names: list[str]) -> Record | None:
    """PyTorch eager and every named engine, side by side; None where the plan leaves the timing out."""
    options = run.bench_options()
    if options is None:
        return None
    gpu = GpuOptions(run.plan.bench.cuda_graph, transfers=run.plan.bench.transfers)
    paths = [checkpoint, *(run.folder.path / "engines" / name for name in names)]
    inputs = {
        "options": options.to_dict(),
        "gpu": gpu.calls,
        "checkpoint": sha256_file(checkpoint),
        "engines": [sorted(run.folder.steps[f"engine {name}"].files.items()) for name in names],
    }
    request = BenchRequest(tuple(paths), options, run.plan.recipe, run.plan.factory, gpu=gpu, weights=run.plan.weights)
    return run.step("bench", inputs, [], lambda: run.local(bench_files(request, run.progress).to_dict()))
