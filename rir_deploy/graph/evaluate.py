"""Running a graph on arrays, whatever its inputs: in ONNX Runtime where it is installed, else in onnx's reference.

This is for checking graphs, not for engines: ONNX Runtime runs them as they are written, without its optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from rir_deploy.file_system import scratch_folder
from rir_deploy.graph.normalize import MESSAGE_BYTES
from rir_deploy.graph.runtime import first_line, import_runtime, log_severity

Feeds: TypeAlias = Mapping[str, NDArray[np.generic]]
_DIM = int | str | None


class NotRunError(Exception):
    """Nothing that is installed runs the graph; the message says why."""


@dataclass(frozen=True)
class GraphInput:
    """``dims``: a size, the name of a dynamic size, or None where it has none."""

    name: str
    dtype: ir.DataType
    dims: tuple[_DIM, ...]


@dataclass(frozen=True)
class Graph:
    """A graph to run: in memory, or as the ``file`` that holds it."""

    model: ir.Model
    file: Path | None = None

    @property
    def inputs(self) -> tuple[GraphInput, ...]:
        """What a caller must give: initialisers that are listed as inputs keep their values.

        Raises:
            NotRunError: an input is no tensor, or its rank is unknown.
        """
        given = [value for value in self.model.graph.inputs if value.name not in self.model.graph.initializers]
        return tuple(_graph_input(value) for value in given)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(str(value.name) for value in self.model.graph.outputs)


class Evaluator(Protocol):
    """A graph that has been loaded. ``name`` is the runtime, with its version; ``is_reference``: it is onnx's."""

    name: str
    is_reference: bool

    def run(self, feeds: Feeds) -> Sequence[Any]:
        """All outputs, in the graph's order; raises whatever the runtime raises."""
        ...


@contextmanager
def open_evaluator(graph: Graph, *, optimize: bool = False, reference: bool = False) -> Iterator[Evaluator]:
    """The graph loaded in ONNX Runtime, or in onnx's ``reference``.

    Raises:
        NotRunError: that runtime is not installed, or does not take the graph.
    """
    with _source(graph) as source:
        yield _reference(source) if reference else _onnx_runtime(source, optimize)


def _onnx_runtime(source: Path | bytes, optimize: bool) -> Evaluator:
    try:
        return _OnnxRuntime(import_runtime(), source, optimize)
    except (ImportError, OSError) as error:
        raise NotRunError("ONNX Runtime is not installed") from error
    except Exception as error:  # it has its own family of exceptions; it lacks float64 convolutions, among others
        raise NotRunError(f"ONNX Runtime does not take it: {first_line(error)}") from error


def _reference(source: Path | bytes) -> Evaluator:
    try:
        return _Reference(source)
    except Exception as error:  # onnx's reference raises whatever building its operators does
        raise NotRunError(f"onnx's reference does not take it: {first_line(error)}") from error


class _OnnxRuntime:
    is_reference = False

    def __init__(self, runtime: Any, source: Path | bytes, optimize: bool) -> None:
        options = runtime.SessionOptions()
        options.log_severity_level = log_severity()
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not optimize:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = source if isinstance(source, bytes) else str(source)
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._options = runtime.RunOptions()
        self._options.log_severity_level = log_severity()
        self.name = f"ONNX Runtime {runtime.__version__}"

    def run(self, feeds: Feeds) -> Sequence[Any]:
        return list(self._session.run(None, dict(feeds), self._options))


class _Reference:
    is_reference = True

    def __init__(self, source: Path | bytes) -> None:
        self._evaluator = ReferenceEvaluator(source if isinstance(source, bytes) else str(source))
        self.name = f"onnx's reference {onnx.__version__}"

    def run(self, feeds: Feeds) -> Sequence[Any]:
        with np.errstate(all="ignore"):
            return list(self._evaluator.run(None, dict(feeds)))


@contextmanager
def _source(graph: Graph) -> Iterator[Path | bytes]:
    tensors = [value.const_value for value in graph.model.graph.initializers.values() if value.const_value is not None]
    if graph.file is not None:
        yield graph.file
    elif sum(tensor.nbytes for tensor in tensors if tensor.dtype != ir.DataType.STRING) <= MESSAGE_BYTES:
        yield bytes(ir.to_proto(graph.model).SerializeToString())
    else:
        with scratch_folder() as folder:
            ir.save(graph.model, folder / "graph.onnx", external_data="graph.onnx.data")
            yield folder / "graph.onnx"


def _graph_input(value: ir.Value) -> GraphInput:
    if not isinstance(value.type, ir.TensorType):
        raise NotRunError(f"its input '{value.name}' is no tensor")
    if value.shape is None:
        raise NotRunError(f"its input '{value.name}' has no known rank")
    dims = [_dim(size) for size in value.shape]
    channels = _channels(value)
    if channels is not None and len(dims) > 1 and not isinstance(dims[1], int):
        dims[1] = channels
    return GraphInput(str(value.name), value.type.dtype, tuple(dims))


def _channels(value: ir.Value) -> int | None:
    """As many as the weight of a convolution asks for that reads the input; None where none does."""
    for node, index in value.uses():
        weight = node.inputs[1] if node.op_type == "Conv" and index == 0 else None
        if weight is not None and weight.const_value is not None and len(weight.const_value.shape) > 1:
            return int(weight.const_value.shape.numpy()[1]) * (node.attributes.get_int("group") or 1)
    return None


def _dim(size: object) -> _DIM:
    if isinstance(size, int):
        return size if size >= 0 else None  # some exporters write -1 for a size that is not known
    name = getattr(size, "value", None)
    return str(name) if name else None
