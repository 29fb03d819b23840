"""ONNX Runtime on the CPU. Its engine is the ONNX file itself: optimised dumps are bound to the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from rir_deploy.engines.base import (
    GRAPH_NAME,
    Array,
    Availability,
    BuildOptions,
    Built,
    SessionBase,
    TensorSpec,
    check_batch,
)
from rir_deploy.errors import BackendError, InputError, UsageError

PROVIDER = "CPUExecutionProvider"
_INSTALL = 'python -m pip install "rir-deploy[host]"'
_DTYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8", "int8": "int8"}


class OnnxRuntimeSession(SessionBase):
    def __init__(self, engine: Path, threads: int | None = None, exclusive: bool = False) -> None:
        ort = _runtime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if not exclusive:
            # Threads that spin between calls take the cores from whatever else computes here: PyTorch, another engine.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(str(engine), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime raises its own family of exceptions, by status code
            raise InputError(
                f"ONNX Runtime does not take '{engine}': {_first_line(error)}; inspect or export it again"
            ) from error
        self._version = ort.__version__
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise InputError(f"'{engine}' has {len(inputs)} inputs ({names}); an engine takes exactly one image input")
        self._input = _spec(inputs[0])
        self._outputs = tuple(_spec(value) for value in self._session.get_outputs())

    @property
    def runs_on(self) -> str:
        """Asked of the session itself: a provider may be listed and still not be used."""
        return f"onnxruntime {self._version} {self._session.get_providers()[0]}"

    def run(self, batch: Array) -> dict[str, Array]:
        check_batch(batch, self._input)
        try:
            results = self._session.run(None, {self._input.name: batch})
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot run a batch of {len(batch)}: {_first_line(error)}") from error
        return {spec.name: result for spec, result in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        self._session = None


class OnnxRuntimeBackend:
    name = "onnxruntime"

    def availability(self) -> Availability:
        try:
            version = str(_runtime().__version__)
        except BackendError as error:
            return Availability(self.name, False, False, None, str(error), _INSTALL)
        return Availability(self.name, True, True, version, "", _INSTALL)

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        runtime = _runtime()
        if options.targets:
            raise UsageError("ONNX Runtime's engine runs on any CPU: --target does not apply to it")
        path = folder / GRAPH_NAME
        if not path.exists():
            ir.save(model, path)
        with OnnxRuntimeSession(path) as session:  # an engine that does not load is not built
            realized = {"runs_on": session.runs_on}
        return Built(path.name, self.name, str(runtime.__version__), realized=realized)

    def load(self, engine: Path, threads: int | None = None, *, exclusive: bool = False) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(engine, threads, exclusive)


BACKEND = OnnxRuntimeBackend()


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is not installed; run: {_INSTALL}") from error
    return onnxruntime


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _spec(value: Any) -> TensorSpec:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(dtype, dtype), shape)
