"""The two small protocols that every backend fills, and the records they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import InputError

Array = NDArray[np.generic]


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
        if not 1 <= self.min <= self.opt <= self.max:
            raise InputError(f"batch range {self.min},{self.opt},{self.max}: give 1 <= min <= opt <= max")


@dataclass(frozen=True)
class BuildOptions:
    """``targets`` are compute capabilities ("sm89"), for backends that build for a machine other than this one."""

    batch: BatchRange = BatchRange()
    targets: tuple[str, ...] = ()


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
    """What a backend made: ``file`` (inside the engine folder) and what it found out about it."""

    file: str
    backend: str
    backend_version: str
    targets: tuple[str, ...] = ()
    realized: Mapping[str, object] = field(default_factory=dict)


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


class Backend(Protocol):
    """One runtime. ``build`` and ``load`` raise BackendError where the runtime or hardware is not there."""

    name: str

    def availability(self) -> Availability: ...

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the engine for ``model`` into ``folder`` and say what was built."""
        ...

    def load(self, engine: Path, threads: int | None = None) -> Session:
        """Open an engine file. The caller has checked its manifest."""
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
