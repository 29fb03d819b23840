"""The two small protocols that every backend fills, and the records they exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    from rir_deploy.engines.manifest import Manifest

Array = NDArray[np.generic]

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

    ``tensorrt`` is for TensorRT and TensorRT-RTX alone. ``on_progress`` hears of the steps of a build where the runtime
    reports them; an exception from it ends the build.
    """

    batch: BatchRange = BatchRange()
    targets: tuple[str, ...] = ()
    tensorrt: TensorRtOptions = TensorRtOptions()
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

    ``gpu`` is the one it was built on, for backends that tie an engine to it. ``extra_files`` are further names in that
    folder without which the engine does not load: a manifest must vouch for them too.
    """

    file: str
    backend: str
    backend_version: str
    targets: tuple[str, ...] = ()
    gpu: str = ""
    realized: Mapping[str, object] = field(default_factory=dict)
    extra_files: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded engine, for any number of threads. Use as a context manager: leaving it frees the device."""

    @property
    def streams(self) -> int:
        """How many runs are computed at once; further callers wait."""
        ...

    @property
    def input(self) -> TensorSpec: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def batches(self) -> tuple[int, int] | None:
        """The smallest and the largest batch that the engine itself takes; None where it takes any."""
        ...

    @property
    def runs_on(self) -> str:
        """The runtime, provider and precision that really run, e.g. "onnxruntime 1.19 CPUExecutionProvider"."""
        ...

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name for one input batch [N, ...].

        Raises:
            InputError: the batch is not of the shape, type or size that the engine takes.
            UsageError: the session is closed.
            BackendError: the device failed.
        """
        ...

    def close(self) -> None:
        """Free what the session holds; a second call does nothing."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *exception: object) -> None: ...


class Backend(Protocol):
    """One runtime. ``build`` and ``load`` raise BackendError where the runtime or hardware is not there.

    ``precisions`` are those of the graphs that it computes as they say: a backend that would compute INT8 in float does
    not take INT8.
    """

    name: str
    precisions: tuple[str, ...]

    def availability(self) -> Availability: ...

    def check(self, precision: str | None, options: BuildOptions) -> None:
        """Refuse, before any work is done, what this backend does not do: UsageError with the way out.

        ``precision`` is that of the graph to come, None where it is not known yet.
        """
        ...

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the engine for ``model`` into ``folder`` and say what was built."""
        ...

    def mismatch(self, manifest: Manifest) -> str | None:
        """Why an engine of that manifest is not for this machine's runtime or GPU; None where it may be."""
        ...

    def import_runtime(self) -> None:
        """Import the runtime's modules, which loading would do otherwise. BackendError where they are not here."""
        ...

    def load(
        self,
        engine: Path,
        threads: int | None = None,
        *,
        exclusive: bool = False,
        gpu: GpuOptions = GpuOptions(),
        streams: int | None = 1,
    ) -> Session:
        """Open an engine file. The caller has checked its manifest.

        ``threads`` are CPU threads in all, whatever the number of streams. ``exclusive``: nothing else computes in this
        process, so idle threads may spin while they wait for work. ``streams``: runs computed at once. 1 is for the
        lowest latency, None for the highest throughput, with the number that the runtime recommends.

        Raises:
            UsageError: an option does not apply to this backend.
        """
        ...


def input_spec(model: ir.Model) -> TensorSpec:
    """The single image input of a model; InputError where there is not exactly one."""
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        raise InputError(f"the model has {len(inputs)} inputs ({names}); an engine takes exactly one image input")
    return _spec(inputs[0])


def fit_batch(spec: TensorSpec, batch: BatchRange) -> BatchRange:
    """The batch sizes that an engine of this input takes: those asked for, or the only one that the model has.

    Raises:
        InputError: the model's only batch size is not among those asked for.
    """
    fixed = spec.shape[0]
    if fixed is None:
        return batch
    if not batch.min <= fixed <= batch.max:
        raise InputError(
            f"the model takes batches of {fixed} only, outside of {batch.min} to {batch.max}; "
            "export it with a dynamic batch or change --batch"
        )
    return BatchRange(fixed, fixed, fixed)


def output_specs(model: ir.Model) -> tuple[TensorSpec, ...]:
    return tuple(_spec(value) for value in model.graph.outputs)


def _spec(value: ir.Value) -> TensorSpec:
    if value.dtype is None or value.shape is None or value.name is None:
        raise InputError(f"the model's tensor '{value.name}' has no type or shape; export it with both")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, str(value.dtype.numpy()), shape)
