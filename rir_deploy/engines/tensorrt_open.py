"""A plan file to an engine that is ready to run. Not yet run on a GPU.

What a plan needs is in its name, which its manifest vouches for: "engine.lean.trt" holds a runtime of its own,
"engine.stripped.trt" takes its weights from the graph beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rir_deploy.engines.base import GRAPH_NAME
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_log import logger_of
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import BackendError, InputError

if TYPE_CHECKING:
    import tensorrt as trt

_LEAN, _STRIPPED = ".lean", ".stripped"


def plan_name(flavour: Flavour, options: TensorRtOptions) -> str:
    stem, suffix = flavour.engine_file.split(".")
    needs = (_LEAN if options.version_compatible else "") + (_STRIPPED if options.strip_weights else "")
    return f"{stem}{needs}.{suffix}"


def open_plan(module: TensorRt, flavour: Flavour, gpu: Gpu, path: Path) -> tuple[trt.Runtime, trt.ICudaEngine]:
    """Deserialise a plan, and put its weights back where it was stripped of them.

    Raises:
        BackendError: it is for another GPU or another TensorRT, or the GPU lacks the memory.
        InputError: it cannot be read, or a stripped plan has no graph beside it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the engine '{path}': {error.strerror}; build it again") from error
    logger = logger_of(module)
    logger.heard.forget()
    runtime = module.Runtime(logger)
    # Its default is False: a plan may bring no host code of its own, unless it was built to.
    if _LEAN in path.suffixes:
        runtime.engine_host_code_allowed = True
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise load_error(module, flavour, gpu, path)
    if _STRIPPED in path.suffixes:
        _refit(module, flavour, engine, path.parent / GRAPH_NAME)
    return runtime, engine


def load_error(module: TensorRt, flavour: Flavour, gpu: Gpu, path: Path) -> BackendError:
    return BackendError(
        f"'{path}' does not load with {flavour.label} {module.__version__} on {gpu.label}: "
        f"{logger_of(module).heard.last_error()}; build it on this machine or for this target"
    )


def _refit(module: TensorRt, flavour: Flavour, engine: trt.ICudaEngine, graph: Path) -> None:
    if not graph.is_file():
        raise InputError(f"the engine's weights are in '{graph}', which is not there; build the engine again")
    logger = logger_of(module)
    refitter = module.Refitter(engine, logger)
    parser = module.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(graph)) or not refitter.refit_cuda_engine():
        raise BackendError(
            f"{flavour.label} does not take the engine's weights from '{graph}': {logger.heard.last_error()}; "
            "build it without --strip-weights"
        )
