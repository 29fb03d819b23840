"""A TensorRT engine on the GPU. Not yet run on a GPU: written to NVIDIA's Python API reference (10.3 to 11.4, RTX 1.7),
and tested against stand-ins that check the order of the calls.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.engines.cuda_stream import CudaStream
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.rtx_runtime import RtxRuntime
from rir_deploy.engines.session import SessionBase
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_open import load_error, open_plan
from rir_deploy.engines.tensorrt_request import TensorRtRequest, sizes_of
from rir_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    import tensorrt as trt

# Enough for the copies of one request to go on while another computes.
STREAMS = 2


class TensorRtSession(SessionBase):
    """One engine, and an execution context with a stream and buffers for each of ``streams``. Closing frees all of it.

    Raises:
        BackendError: the engine is for another GPU or another TensorRT, or the GPU lacks the memory.
        InputError: the engine has not exactly one input.
        UsageError: an option is not for this TensorRT.
    """

    def __init__(
        self,
        module: TensorRt,
        flavour: Flavour,
        gpu: Gpu,
        engine: Path,
        cudart: Any,
        options: GpuOptions = GpuOptions(),
        streams: int | None = 1,
    ) -> None:
        super().__init__()
        self._module, self._flavour, self._gpu = module, flavour, gpu
        self._runtime: trt.Runtime | None = None
        self._rtx: RtxRuntime | None = None
        self._requests: list[TensorRtRequest] = []
        self._stream = CudaStream(cudart)  # first: it makes the CUDA context that the engine lives in
        try:
            self._runtime, self._engine = open_plan(module, flavour, gpu, engine)
            for _ in range(streams or STREAMS):
                self._requests.append(self._make_request(engine, options))
            self._read_specs()
        except BaseException:
            self.close()
            raise
        self._open_slots(self._requests)

    @property
    def runs_on(self) -> str:
        notes = list(self._rtx.notes) if self._rtx is not None else []
        notes += ["in a CUDA graph"] if any(request.in_graph for request in self._requests) else []
        return ", ".join([f"{self._flavour.backend} {self._module.__version__} {self._gpu.label}", *notes])

    def layers(self) -> str:
        """The inspector's JSON, at the batch size that the engine is tuned for: without one it names no formats."""
        request = self._slots.get()
        try:
            if self._input.shape[0] is None:
                opt = sizes_of(self._engine.get_tensor_profile_shape(self._input.name, 0)[1])
                request.unbind()
                request.context.set_input_shape(self._input.name, opt)
            inspector = self._engine.create_engine_inspector()
            inspector.execution_context = request.context
            return str(inspector.get_engine_information(self._module.LayerInformationFormat.JSON))
        finally:
            self._slots.put(request)

    def _run(self, batch: Array, slot: TensorRtRequest) -> dict[str, Array]:
        return slot.run(batch, self._input, self._outputs)

    def _close(self) -> None:
        """Requests, engine, runtime, in this order; the stream that made the CUDA context goes last."""
        try:
            if self._rtx is not None:
                self._rtx.save()
        finally:
            for request in self._requests:
                request.close()
            self._requests.clear()
            for name in ("_rtx", "_engine", "_runtime"):
                setattr(self, name, None)
            self._stream.close()

    def _make_request(self, path: Path, options: GpuOptions) -> TensorRtRequest:
        rtx = hasattr(self._module, "CudaGraphStrategy")
        if options.runtime_cache is not None and not rtx:
            raise UsageError(f"{self._flavour.label} compiles nothing while it runs: it has no runtime cache to name")
        context: trt.IExecutionContext | None
        if rtx and (options.cuda_graph or options.runtime_cache is not None):
            if self._rtx is None:
                self._rtx = RtxRuntime(self._module, self._engine, options)
            context = self._engine.create_execution_context(self._rtx.config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise load_error(self._module, self._flavour, self._gpu, path)
        # RTX captures by itself, when its kernels are compiled.
        own = replace(options, cuda_graph=options.cuda_graph and not rtx)
        return TensorRtRequest(self._module, context, self._stream.cudart, own)

    def _read_specs(self) -> None:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        is_input = self._module.TensorIOMode.INPUT
        inputs = [spec for name, spec in specs.items() if self._engine.get_tensor_mode(name) == is_input]
        if len(inputs) != 1:
            raise InputError(f"the engine has {len(inputs)} inputs; build it from a model with one image input")
        self._input = inputs[0]
        self._outputs = tuple(spec for spec in specs.values() if spec is not inputs[0])
        if self._input.shape[0] is None:
            low, _, high = (int(dims[0]) for dims in self._engine.get_tensor_profile_shape(self._input.name, 0))
            self._batches = (low, high)

    def _spec(self, name: str) -> TensorSpec:
        dtype = np.dtype(self._module.nptype(self._engine.get_tensor_dtype(name)))
        shape = tuple(None if size < 0 else size for size in sizes_of(self._engine.get_tensor_shape(name)))
        return TensorSpec(name, str(dtype), shape)
