"""The two small protocols that every backend fills, and the records they exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from google.protobuf.message import EncodeError
from numpy.typing import NDArray

from rir_deploy.errors import InputError, UsageError

Array = NDArray[np.generic]
Opened = TypeVar("Opened", bound="SessionBase")

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the steps in all."""

# The ONNX graph an engine was built from, kept in the engine's folder; it is there before `Backend.build` is called.
GRAPH_NAME = "graph.onnx"
MAX_BATCH = 65_536


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of an engine's input or output; None is a dynamic size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes an engine takes; ``opt`` is the one it is tuned for."""

    min: int = 1
    opt: int = 1
    max: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= MAX_BATCH:
            raise UsageError(
                f"batch range {self.min},{self.opt},{self.max}: give 1 <= min <= opt <= max <= {MAX_BATCH}"
            )


@dataclass(frozen=True)
class BuildOptions:
    """``targets`` are compute capabilities ("sm89"), for backends that build for a machine other than this one.

    ``on_progress`` hears of the steps of a build where the runtime reports them; an exception from it ends the build.
    """

    batch: BatchRange = BatchRange()
    targets: tuple[str, ...] = ()
    on_progress: Progress | None = None


@dataclass(frozen=True)
class Availability:
    """Whether a backend really works here. ``install`` is the line that would bring it."""

    backend: str
    can_build: bool
    can_run: bool
    version: str | None
    reason: str
    install: str


@dataclass(frozen=True)
class Built:
    """What a backend made: ``file`` (inside the engine folder) and what it found out about it.

    ``extra_files`` are further names in that folder without which the engine does not load: a manifest must vouch for
    them too.
    """

    file: str
    backend: str
    backend_version: str
    targets: tuple[str, ...] = ()
    realized: Mapping[str, object] = field(default_factory=dict)
    extra_files: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded engine. Use as a context manager: leaving it frees the device."""

    @property
    def input(self) -> TensorSpec: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def runs_on(self) -> str:
        """The runtime, provider and precision that really run, e.g. "onnxruntime 1.19 CPUExecutionProvider"."""
        ...

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name for one input batch [N, ...]."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exception: object) -> None: ...


class SessionBase:
    """What all sessions share; a backend writes ``run``, ``runs_on`` and ``close``, and sets the specs."""

    _input: TensorSpec
    _outputs: tuple[TensorSpec, ...]

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._outputs

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Backend(Protocol):
    """One runtime. ``build`` and ``load`` raise BackendError where the runtime or hardware is not there."""

    name: str

    def availability(self) -> Availability: ...

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the engine for ``model`` into ``folder`` and say what was built."""
        ...

    def load(self, engine: Path, threads: int | None = None, *, exclusive: bool = False) -> Session:
        """Open an engine file. The caller has checked its manifest.

        ``exclusive``: nothing else computes in this process, so idle threads may spin while they wait for work.
        """
        ...


def input_spec(model: ir.Model) -> TensorSpec:
    """The single image input of a model; InputError where there is not exactly one."""
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        raise InputError(f"the model has {len(inputs)} inputs ({names}); an engine takes exactly one image input")
    return _spec(inputs[0])


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    return tuple(_spec(value) for value in model.graph.outputs)


def _spec(value: ir.Value) -> TensorSpec:
    if value.dtype is None or value.shape is None or value.name is None:
        raise InputError(f"the model's tensor '{value.name}' has no type or shape; export it with both")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, str(value.dtype.numpy()), shape)


def model_bytes(model: ir.Model) -> bytes:
    """A model as one self-contained ONNX file in memory, its weights inside.

    Raises:
        InputError: it is larger than the 2 GB that one protobuf message can hold.
    """
    ir.external_data.load_to_model(model)  # a reference to a file beside the source would dangle elsewhere
    try:
        return bytes(ir.to_proto(model).SerializeToString())
    except (ValueError, EncodeError) as error:
        raise InputError(
            "the model is larger than the 2 GB of one ONNX file; build it with --backend onnxruntime"
        ) from error


def check_batch(batch: Array, spec: TensorSpec) -> None:
    """Refuse a batch that the input does not take: InputError naming both shapes."""
    fits = batch.ndim == len(spec.shape) and all(
        want is None or want == have for want, have in zip(spec.shape, batch.shape, strict=True)
    )
    if not fits or batch.dtype != np.dtype(spec.dtype):
        wanted = "x".join("N" if size is None else str(size) for size in spec.shape)
        given = "x".join(map(str, batch.shape))
        raise InputError(
            f"the input '{spec.name}' takes {spec.dtype} {wanted}, not {batch.dtype} {given}; "
            "check the image size and the recipe"
        )
