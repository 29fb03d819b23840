"""Anything that answers images with logits: a checkpoint, an ONNX file, an engine folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.artifacts import sha256_file
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.engines import get_backend
from rir_deploy.engines.base import MAX_BATCH, Session
from rir_deploy.engines.graph import model_precision
from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import MANIFEST_NAME, Manifest, check_engine
from rir_deploy.engines.tensorrt_gpu import Gpu, probe_gpu
from rir_deploy.engines.tensorrt_match import serves
from rir_deploy.errors import InputError, UsageError
from rir_deploy.file_system import scratch_folder
from rir_deploy.models.suffixes import CHECKPOINT_SUFFIXES
from rir_deploy.onnx_file import load_onnx, read_provenance, save_onnx
from rir_deploy.pipeline.batching import as_rows, in_batches
from rir_deploy.simulate import FP16_LABEL, simulate_fp16

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["checkpoint", "onnx", "engine", "bundle"]
# A data set can be a zip as well, but is never asked for its kind.
BUNDLE_SUFFIX = ".zip"
Runner = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


@dataclass
class Side:
    """One side of a comparison, opened: call `run` with uint8 images; use it as a context manager.

    ``batch`` are the smallest and largest batch size it takes, ``optimum`` the one it is tuned for; ``accuracy`` is
    what a checkpoint records of its training, ``weights`` the key in it where it holds several sets of them.
    """

    path: str
    kind: Kind
    precision: str
    sha256: str
    recipe: dict[str, Any] | None
    runs_on: str
    make_runner: Callable[[Preprocessing], Runner]
    simulation: str | None = None
    batch: tuple[int, int] = (1, 4096)
    optimum: int | None = None
    output: str = "logits"
    accuracy: dict[str, Any] | None = None
    weights: str | None = None
    close: Callable[[], None] = field(default=lambda: None)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def to_dict(self) -> dict[str, object]:
        keys = ("path", "kind", "precision", "sha256", "runs_on", "simulation")
        own = {} if self.weights is None else {"weights": self.weights}
        return {**{key: getattr(self, key) for key in keys}, **own}


def kind_of(path: Path) -> Kind:
    """What a path is, by its name and place.

    Raises:
        UsageError: there is no such file, or it is none of the four.
    """
    try:
        exists = path.exists()
    except OSError as error:
        raise UsageError(f"'{path}' cannot be looked at: {error.strerror}; check the path") from error
    if not exists:
        raise UsageError(f"there is no file '{path}'; name a checkpoint, an ONNX file, an engine folder or a bundle")
    if path.is_dir() or path.name == MANIFEST_NAME:
        return "engine"
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix in CHECKPOINT_SUFFIXES:
        return "checkpoint"
    if path.suffix == BUNDLE_SUFFIX:
        return "bundle"
    raise UsageError(
        f"'{path}' is neither a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}) nor an ONNX file (.onnx) nor a bundle "
        f"({BUNDLE_SUFFIX}) nor the folder of an engine"
    )


def open_side(
    path: Path,
    *,
    model: str | None = None,
    threads: int | None = None,
    simulate: bool = False,
    trust: bool = False,
    weights: str | None = None,
) -> Side:
    """Open a checkpoint (``model`` is "package.module:factory" for a foreign one), ONNX file or engine folder.

    ``weights`` chooses among several sets of weights in a checkpoint: "model", "ema" or a key.

    With ``simulate``, an engine that cannot run here is stood in for by the graph it was built from. With ``trust``, an
    engine is loaded whatever its manifest says.

    Raises:
        UsageError, InputError, BackendError: as the loaders of each do.
    """
    kind = kind_of(path)
    if kind == "checkpoint":
        return _checkpoint_side(path, model, weights)
    if kind == "onnx":
        return _onnx_side(path, threads)
    if kind == "bundle":
        raise UsageError(f"'{path}' is a bundle, which is no one model; unpack a graph or an engine of it")
    return _engine_side(path if path.is_dir() else path.parent, threads, simulate, trust)


def _checkpoint_side(path: Path, model: str | None, weights: str | None) -> Side:
    from rir_deploy.pipeline.checkpoints import load_module

    loaded = load_module(path, model, weights=weights)
    import torch

    return Side(
        str(path),
        "checkpoint",
        "fp32",
        sha256_file(path),
        loaded.recipe,
        f"torch {torch.__version__} cpu eager",
        lambda preprocessing: module_runner(loaded.module, preprocessing),
        accuracy=loaded.accuracy,
        weights=loaded.weights,
    )


def _onnx_side(path: Path, threads: int | None) -> Side:
    model = load_onnx(path)
    provenance = read_provenance(model)
    session = get_backend("onnxruntime").load(path, threads)
    batch = _static_batch(session)
    return Side(
        str(path),
        "onnx",
        model_precision(model),
        sha256_file(path),
        None if provenance is None else provenance.recipe,
        session.runs_on,
        lambda preprocessing: session_runner(session, preprocessing, batch),
        batch=batch or (1, 4096),
        output=session.outputs[0].name,
        close=session.close,
    )


def _static_batch(session: Session) -> tuple[int, int] | None:
    size = session.input.shape[0] if session.input.shape else None
    return None if size is None else (size, size)


def _engine_side(folder: Path, threads: int | None, simulate: bool, trust: bool) -> Side:
    manifest = check_engine(folder, trust=trust)
    if simulate and runnable(manifest.backend, manifest.targets) is not None:
        return _simulated_side(folder, manifest, threads)
    session = load_engine(folder, manifest, threads, trust=trust)
    note = " (trusted: not checked against its manifest)" if trust else ""
    batch = _static_batch(session) or (manifest.batch[0], manifest.batch[2])
    return Side(
        str(folder),
        "engine",
        manifest.precision,
        manifest.engine.sha256,
        manifest.recipe,
        session.runs_on + note,
        lambda preprocessing: session_runner(session, preprocessing, batch),
        batch=batch,
        optimum=manifest.batch[1],
        output=session.outputs[0].name,
        close=session.close,
    )


def runnable(backend: str, targets: tuple[str, ...]) -> str | None:
    """Why an engine for these targets cannot run here; None where it can."""
    found = get_backend(backend).availability()
    if not found.can_run:
        return found.reason
    gpu = probe_gpu() if targets else None
    if isinstance(gpu, Gpu) and not serves(targets, gpu):
        return f"built for {', '.join(targets)}, and this GPU is {gpu.target}"
    return None


def _simulated_side(folder: Path, manifest: Manifest, threads: int | None) -> Side:
    """The graph that an engine was built from, in ONNX Runtime: rounding as the graph says, timing like nothing."""
    graph = load_onnx(folder / manifest.graph.name)
    rounded = any(value.dtype == ir.DataType.FLOAT16 for node in graph.graph for value in node.outputs)
    with scratch_folder() as temporary:
        path = temporary / "simulation.onnx"
        save_onnx(simulate_fp16(graph) if rounded else graph, path, force=False)
        session = get_backend("onnxruntime").load(path, threads)
    how = FP16_LABEL if rounded else f"the {manifest.precision} graph of the engine"
    label = f"{how}, in {session.runs_on}"
    batch = _static_batch(session)
    return Side(
        str(folder),
        "engine",
        manifest.precision,
        manifest.engine.sha256,
        manifest.recipe,
        f"simulation: {label}",
        lambda preprocessing: session_runner(session, preprocessing, batch),
        label,
        batch=batch or (1, 4096),
        output=session.outputs[0].name,
        close=session.close,
    )


def module_runner(module: nn.Module, preprocessing: Preprocessing) -> Runner:
    """A module in eval mode, on the CPU in FP32."""
    import torch

    def run(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        with torch.inference_mode():
            output = module(torch.from_numpy(preprocessing.normalize(images)))
        if not isinstance(output, torch.Tensor):
            raise InputError(f"the model returns {type(output).__name__}, not one tensor of logits")
        return np.asarray(output.numpy())

    module.eval()
    return run


def session_runner(session: Session, preprocessing: Preprocessing, batch: tuple[int, int] | None = None) -> Runner:
    """A session fed with images: normalised, unless the graph does that itself (uint8 input).

    ``batch`` are the smallest and the largest batch that it takes; other numbers of images are cut, or padded.
    """
    if len(session.outputs) != 1:
        names = ", ".join(spec.name for spec in session.outputs)
        raise InputError(f"the model has {len(session.outputs)} outputs ({names}); a classifier has one")
    raw = session.input.dtype == "uint8"
    output = session.outputs[0].name
    low, high = batch or (1, MAX_BATCH)
    answer = in_batches(session.run, low, high)

    def run(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        rows = as_rows(np.asarray(answer(images if raw else preprocessing.normalize(images))[output]), len(images))
        if len(rows) != len(images):
            raise InputError(
                f"the output '{output}' has {len(rows)} rows for {len(images)} images; a classifier gives one an image"
            )
        return rows

    return run
