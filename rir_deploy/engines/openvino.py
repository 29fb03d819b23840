"""OpenVINO on the CPU. Its engine is the IR: `engine.xml`, with the weights in `engine.bin` beside it.

The precision that a graph runs in is asked for and read back, because OpenVINO otherwise chooses bfloat16 by itself on
CPUs that have it, for an FP32 graph too ("Precision Control" in its documentation).
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from rir_deploy.engines.base import Array, Availability, BuildOptions, Built, TensorSpec, input_spec
from rir_deploy.engines.folder import nothing_left
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.graph import graph_precision, model_bytes
from rir_deploy.engines.manifest import Manifest
from rir_deploy.engines.session import SessionBase
from rir_deploy.engines.tensorrt_options import refuse_all_options
from rir_deploy.errors import BackendError, InputError, UsageError

DEVICE = "CPU"
INTEGERS = frozenset({"i8", "u8"})
_INSTALL = "python -m pip install openvino"
_KINDS = {"Convolution": "conv", "GroupConvolution": "conv", "FullyConnected": "matmul", "MatMul": "matmul"}


class OpenVinoSession(SessionBase):
    """One infer request a stream. ``threads`` None leaves the number to OpenVINO.

    One stream is tuned for latency, several for throughput; ``streams`` None takes as many requests as OpenVINO
    recommends.
    """

    def __init__(self, engine: Path, threads: int | None = None, streams: int | None = 1) -> None:
        super().__init__()
        ov = load_runtime()
        core = ov.Core()
        model = read_model(core, str(engine), f"'{engine}'")
        self.hint = precision_hint(model, core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.hint}
        config["PERFORMANCE_HINT"] = "LATENCY" if streams == 1 else "THROUGHPUT"
        if streams is not None:
            config["NUM_STREAMS"] = streams
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            self._compiled: Any = core.compile_model(model, DEVICE, config)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot compile '{engine}': {_reason(error)}; build the engine again") from error
        _check_hint(self._compiled, self.hint)
        requests = streams or self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._version = _version(ov)
        self._input = _spec(self._compiled.inputs[0])
        self._outputs = tuple(_spec(port) for port in self._compiled.outputs)
        self._open_slots(self._compiled.create_infer_request() for _ in range(requests))

    @property
    def runs_on(self) -> str:
        """Asked of the compiled model: its devices, its precision hint, and what its convolutions compute in."""
        devices = "+".join(self._compiled.get_property("EXECUTION_DEVICES"))
        convs = executed_precisions(self._compiled).get("conv", {})
        integer = sum(count for name, count in convs.items() if name in INTEGERS)
        return (
            f"openvino {self._version} {devices} (precision hint {self.hint}, "
            f"{integer} of {sum(convs.values())} convolutions in int8)"
        )

    @property
    def realized(self) -> dict[str, object]:
        """The hint, and how many layers of a kind run in each precision: {"hint": "f32", "conv": {"u8": 18}}."""
        return {"hint": self.hint, **executed_precisions(self._compiled), "runs_on": self.runs_on}

    def _run(self, batch: Array, slot: Any) -> dict[str, Array]:
        try:
            results = _infer(slot, np.ascontiguousarray(batch), alone=self.streams == 1)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise InputError(f"OpenVINO cannot run a batch of {len(batch)}: {reason}") from error
        return {spec.name: results[i] for i, spec in enumerate(self._outputs)}

    def _close(self) -> None:
        self._compiled = None


class OpenVinoBackend:
    name = "openvino"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")

    def availability(self) -> Availability:
        try:
            version = _version(load_runtime())
        except BackendError as error:
            return Availability(self.name, False, False, None, str(error), _INSTALL)
        return Availability(self.name, True, True, version, "", _INSTALL)

    def check(self, precision: str | None, options: BuildOptions) -> None:
        if options.targets:
            raise UsageError("OpenVINO's engine runs on any CPU: leave --target out")
        refuse_all_options(options.tensorrt, "OpenVINO")

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Write the IR, then load it once: an engine that does not load is not built."""
        ov = load_runtime()
        self.check(graph_precision(model), options)
        input_spec(model)
        path = folder / "engine.xml"
        with nothing_left(folder):
            # Weights keep their type: by default they would be rounded to FP16 here, whatever the graph says.
            ov.save_model(read_model(ov.Core(), model_bytes(model), "the model"), path, compress_to_fp16=False)
            with OpenVinoSession(path) as session:
                realized = session.realized
        return Built(path.name, self.name, _version(ov), realized=realized, extra_files=("engine.bin",))

    def mismatch(self, manifest: Manifest) -> str | None:
        """An IR is bound neither to a machine nor to a version."""
        return None

    def import_runtime(self) -> None:
        load_runtime()

    def load(
        self,
        engine: Path,
        threads: int | None = None,
        *,
        exclusive: bool = False,
        gpu: GpuOptions = GpuOptions(),
        streams: int | None = 1,
    ) -> OpenVinoSession:
        if gpu != GpuOptions():
            raise UsageError("CUDA graphs and runtime caches are TensorRT's: OpenVINO has none")
        return OpenVinoSession(engine, threads, streams)


BACKEND = OpenVinoBackend()


def precision_hint(model: Any, capabilities: Sequence[str]) -> str:
    """The precision to ask for: "f16" for a graph whose convolutions are FP16 on a CPU that computes in it, else "f32".

    It is "f32" for an INT8 graph too, where it rules what is outside the quantised part.
    """
    half = any(
        node.get_type_name() in _KINDS and node.get_output_element_type(0).get_type_name() == "f16"
        for node in model.get_ops()
    )
    return "f16" if half and "FP16" in capabilities else "f32"


def executed_precisions(compiled: Any) -> dict[str, dict[str, int]]:
    """How many convolutions and matrix products run in each precision, by the runtime's own account."""
    counts: dict[str, Counter[str]] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind = _KINDS.get(str(info["layerType"].astype(str)))
        if kind is not None:
            counts.setdefault(kind, Counter())[str(info["runtimePrecision"].astype(str))] += 1
    return {kind: dict(sorted(count.items())) for kind, count in counts.items()}


def _infer(request: Any, batch: Array, alone: bool) -> Any:
    """One of several requests goes through the streams' own queue; one alone is computed by its caller."""
    if alone:
        return request.infer({0: batch}, share_inputs=True)
    request.start_async({0: batch}, share_inputs=True)
    request.wait()
    return [tensor.data.copy() for tensor in request.output_tensors]


def _check_hint(compiled: Any, wanted: str) -> None:
    real = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if real != wanted:
        raise BackendError(f"OpenVINO was asked for {wanted} and runs in {real}; build with --backend onnxruntime")


def read_model(core: Any, source: str | bytes, name: str) -> Any:
    """A model out of a file or its bytes; InputError where OpenVINO does not take what is called ``name``."""
    try:
        return core.read_model(source)
    except RuntimeError as error:
        raise InputError(f"OpenVINO does not take {name}: {_reason(error)}; inspect or export it again") from error


def _reason(error: RuntimeError) -> str:
    """The lines of an OpenVINO error that say something; the others hold source locations and a manual's address."""
    noise = ("Exception from", "Check '", "FrontEnd API", "Summary:", "To facilitate")
    lines = [line.strip("- .") for line in str(error).splitlines() if line.strip() and not line.startswith(noise)]
    return ", ".join(lines) or "no reason given"


def load_runtime() -> Any:
    """The module `openvino`, without its telemetry; BackendError where it is not here."""
    try:
        with _no_telemetry():
            return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        raise BackendError(f"OpenVINO is not installed; run: {_INSTALL}") from error


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Importing openvino reports the import to its vendor's analytics; without that package it imports all the same."""
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        yield
        return
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the import system's own mark of absence
    try:
        yield
    finally:
        del sys.modules["openvino_telemetry"]


def _version(ov: Any) -> str:
    return str(ov.__version__).split("-")[0]


def _spec(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return TensorSpec(port.get_any_name(), str(np.dtype(port.element_type.to_dtype())), shape)
