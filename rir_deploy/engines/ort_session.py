"""An ONNX file in ONNX Runtime, on one provider and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.engines.ort_provider import OrtProvider, load_runtime, plugin_devices
from rir_deploy.engines.session import SessionBase, usable_cores
from rir_deploy.engines.tensorrt_gpu import Gpu, probe_gpu
from rir_deploy.errors import BackendError, InputError
from rir_deploy.graph.runtime import first_line, log_severity

_DTYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8", "int8": "int8"}
# The session's own words where a node would have gone to the CPU.
_FALLBACK = "fallback to CPU EP has been explicitly disabled"


class OrtSession(SessionBase):
    """``threads`` None leaves the number to ONNX Runtime. ``optimized`` is where the graph as it runs is written.

    ``streams``: the session takes calls from that many threads at once, which share its pool; None for as many as there
    are threads, and 2 on a GPU. A caller computes as well, so the pool is that much smaller.

    Raises:
        BackendError: the provider does not load, or would leave a part of the graph to the CPU.
        InputError: ONNX Runtime does not take the file, or it has not exactly one input.
    """

    def __init__(
        self,
        provider: OrtProvider,
        engine: Path,
        threads: int | None = None,
        exclusive: bool = False,
        optimized: Path | None = None,
        streams: int | None = 1,
    ) -> None:
        super().__init__()
        ort = load_runtime(provider)
        callers = streams or (2 if provider.gpu else threads or usable_cores())
        if callers > 1:
            threads = max(1, (threads or usable_cores()) - callers + 1)
        options = _session_options(ort, provider, threads, exclusive)
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        self._session: Any = _open(ort, provider, engine, options)
        self._provider, self._version = provider, str(ort.__version__)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise InputError(f"'{engine}' has {len(inputs)} inputs ({names}); an engine takes exactly one image input")
        self._input = _spec(inputs[0])
        self._outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self._open_slots(range(callers))

    @property
    def runs_on(self) -> str:
        """Asked of the session itself: a provider may be listed and still not be used."""
        gpu = probe_gpu() if self._provider.gpu else None
        where = f" {gpu.label}" if isinstance(gpu, Gpu) else ""
        return f"{self._provider.backend} {self._version} {self._session.get_providers()[0]}{where}"

    def _run(self, batch: Array, slot: int) -> dict[str, Array]:
        try:
            results = self._session.run(None, {self._input.name: batch})
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot run a batch of {len(batch)}: {first_line(error)}") from error
        return {spec.name: result for spec, result in zip(self._outputs, results, strict=True)}

    def _close(self) -> None:
        self._session = None


def _session_options(ort: Any, provider: OrtProvider, threads: int | None, exclusive: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = log_severity()
    if not exclusive:
        # Threads that spin between calls take the cores from whatever else computes here: PyTorch, another engine.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider.gpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _open(ort: Any, provider: OrtProvider, engine: Path, options: Any) -> Any:
    try:
        session = _create(ort, provider, engine, options)
    except Exception as error:  # onnxruntime raises its own family of exceptions, by status code
        if _FALLBACK in str(error):
            raise _left_to_cpu(ort, provider, engine) from error
        raise InputError(
            f"ONNX Runtime does not take '{engine}': {first_line(error)}; inspect or export it again"
        ) from error
    if session.get_providers()[0] != provider.provider:
        raise _not_loaded(provider, session)
    return session


def _create(ort: Any, provider: OrtProvider, engine: Path, options: Any) -> Any:
    if provider.plugin:
        options.add_provider_for_devices(plugin_devices(ort, provider)[:1], dict(provider.options))
        return ort.InferenceSession(str(engine), options)
    providers = [(provider.provider, dict(provider.options))]
    return ort.InferenceSession(str(engine), options, providers=providers, enable_fallback=0)


def _left_to_cpu(ort: Any, provider: OrtProvider, engine: Path) -> BackendError:
    """Why the CPU would have been used: the provider did not load, or nodes are not its own. Asks a second session."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = _create(ort, provider, engine, options)
        if session.get_providers()[0] != provider.provider:
            return _not_loaded(provider, session)
        parts = session.get_provider_graph_assignment_info()  # since 1.24
        nodes = [node for part in parts if part.ep_name != provider.provider for node in part.get_nodes()]
        names = ", ".join(node.name or node.op_type for node in nodes[:3])
    except Exception:  # what is asked for here only makes the message better
        nodes, names = [], ""
    some = f"{len(nodes)} of its nodes ({names}{', ...' if len(nodes) > 3 else ''})" if nodes else "a part of it"
    return BackendError(
        f"{provider.label} does not run all of '{engine}': it would leave {some} to the CPU; take another backend"
    )


def _not_loaded(provider: OrtProvider, session: Any) -> BackendError:
    return BackendError(
        f"{provider.label} does not load here and ONNX Runtime would have used {session.get_providers()[0]}: "
        f"its libraries (CUDA, cuDNN) are missing or of another version; run: {provider.install}"
    )


def _spec(value: Any) -> TensorSpec:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(dtype, dtype), shape)
