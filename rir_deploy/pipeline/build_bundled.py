"""build-engine from a bundle: the graphs are made already, the one that the backend computes best is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rir_deploy.bundle import open_bundle
from rir_deploy.engines.manifest import MANIFEST_NAME
from rir_deploy.errors import UsageError
from rir_deploy.pipeline import build
from rir_deploy.pipeline.build import BuildRequest, EngineBuilt, changes_int8, choose_backend
from rir_deploy.pipeline.lower import FLAVOURS
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import kind_of


def build_engine(request: BuildRequest, output: Path, *, force: bool, progress: Progress = silent) -> EngineBuilt:
    """As `build.build_engine`, whose source may also be a bundle.

    Raises:
        UsageError: the bundle does not hold the graph of that precision, or what is asked for would change it; or what
            ``force`` would replace is no engine.
        InputError, BackendError, GateError: as the stages do.
    """
    _check_replaced(output)
    if kind_of(request.source) != "bundle":
        return build.build_engine(request, output, force=force, progress=progress)
    _check(request)
    backend = choose_backend(request.backend)
    precision = request.precision or "fp32"
    with open_bundle(request.source) as bundle:
        graph = bundle.graph(precision, FLAVOURS.get(backend) if precision == "int8" else None)
        ready = replace(request, source=graph, backend=backend, precision=precision, fold=False)
        return build.build_engine(ready, output, force=force, progress=progress)


def _check_replaced(output: Path) -> None:
    """A whole folder goes where an engine is replaced: that has to be an engine's, or empty."""
    try:
        kept = output.exists() and not (output / MANIFEST_NAME).is_file()
        kept = kept and not (output.is_dir() and next(output.iterdir(), None) is None)
    except OSError as error:
        raise UsageError(f"cannot write '{output}': {error.strerror}; choose another output") from error
    if kept:
        raise UsageError(f"'{output}' exists and is no engine, which --force does not replace; choose another output")


def _check(request: BuildRequest) -> None:
    if request.calibration.is_given or changes_int8(request) or (request.factory or request.weights) is not None:
        raise UsageError(
            f"the graphs of the bundle '{request.source}' are quantised already: leave out --data, --ranges, "
            "--samples, --method, --percentile, --keep, --max-drop, --reduced-range, --model and --weights"
        )
