"""A TensorRT engine on the GPU. Not yet run on a GPU: written to NVIDIA's Python API reference (10.3 to 11.4, RTX 1.7),
and tested against stand-ins that check the order of the calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rir_deploy.engines.base import Array, GpuOptions, TensorSpec
from rir_deploy.engines.cuda_buffers import CudaBuffers
from rir_deploy.engines.cuda_graph import CudaGraph
from rir_deploy.engines.cuda_stream import CudaStream
from rir_deploy.engines.rtx_runtime import RtxRuntime
from rir_deploy.engines.session import SessionBase
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_log import logger_of
from rir_deploy.engines.tensorrt_open import load_error, open_plan
from rir_deploy.errors import BackendError, InputError, UsageError

if TYPE_CHECKING:
    import tensorrt as trt


class TensorRtSession(SessionBase):
    """One execution context, one stream, buffers as large as the largest batch so far. Closing frees all of it.

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
    ) -> None:
        super().__init__()
        self._module, self._flavour, self._gpu = module, flavour, gpu
        self._runtime: trt.Runtime | None = None
        self._rtx: RtxRuntime | None = None
        self._graph: CudaGraph | None = None
        # The shape that the context and the buffers are set to, and whether it has run since.
        self._bound: tuple[int, ...] | None = None
        self._warm = False
        self._stream = CudaStream(cudart)  # first: it makes the CUDA context that the engine lives in
        self._buffers = CudaBuffers(self._stream)
        try:
            self._runtime, self._engine = open_plan(module, flavour, gpu, engine)
            self._context = self._make_context(engine, options)
            self._read_specs()
        except BaseException:
            self.close()
            raise

    @property
    def runs_on(self) -> str:
        notes = list(self._rtx.notes) if self._rtx is not None else []
        notes += ["in a CUDA graph"] if self._graph is not None else []
        return ", ".join([f"{self._flavour.backend} {self._module.__version__} {self._gpu.label}", *notes])

    def layers(self) -> str:
        """The inspector's JSON, at the batch size that the engine is tuned for: without one it names no formats."""
        if self._input.shape[0] is None:
            opt = _sizes(self._engine.get_tensor_profile_shape(self._input.name, 0)[1])
            self._unbind()
            self._context.set_input_shape(self._input.name, opt)
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._module.LayerInformationFormat.JSON))

    def _run(self, batch: Array) -> dict[str, Array]:
        """One synchronous request with both copies."""
        batch = np.ascontiguousarray(batch)
        if batch.shape != self._bound:
            self._bind(batch.shape)
        results = {spec.name: np.empty(self._output_shape(spec.name), spec.dtype) for spec in self._outputs}
        try:
            self._buffers.upload(self._input.name, batch)
            self._compute()
            for name, result in results.items():
                self._buffers.download(name, result)
        finally:
            self._stream.synchronize()  # also on failure: copies under way still read the batch
        return results

    def _compute(self) -> None:
        """With CUDA graphs: the first run of a shape as it is, the second is captured, all later ones replay it."""
        if self._graph is None and self._captures and self._warm:
            self._graph = CudaGraph(self._stream, self._enqueue)
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._warm = True

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            reason = logger_of(self._module).heard.last_error()
            raise BackendError(f"the engine did not run: {reason}; build it again")

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Set shape and addresses. A graph captured before is undone first: it would be launched on what is gone."""
        self._unbind()
        name = self._input.name
        if self._input.shape[0] is None and not self._context.set_input_shape(name, shape):
            reason = logger_of(self._module).heard.last_error()
            raise BackendError(f"the engine refuses the shape {shape}: {reason}; build it again")
        sizes = {spec.name: (spec, self._output_shape(spec.name)) for spec in self._outputs}
        for tensor, (spec, size) in {name: (self._input, shape), **sizes}.items():
            size_bytes = int(np.prod(size, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            self._context.set_tensor_address(tensor, self._buffers.reserve(tensor, size_bytes))
        self._bound = shape

    def _unbind(self) -> None:
        self._bound, self._warm = None, False
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def _close(self) -> None:
        """Context, engine, runtime, in this order; the stream and buffers that they use go last."""
        try:
            self._unbind()
            if self._rtx is not None:
                self._rtx.save()
        finally:
            for name in ("_context", "_rtx", "_engine", "_runtime"):
                setattr(self, name, None)
            self._buffers.close()
            self._stream.close()

    def _make_context(self, path: Path, options: GpuOptions) -> trt.IExecutionContext:
        rtx = hasattr(self._module, "CudaGraphStrategy")
        if options.runtime_cache is not None and not rtx:
            raise UsageError(f"{self._flavour.label} compiles nothing while it runs: it has no runtime cache to name")
        self._captures = options.cuda_graph and not rtx  # RTX captures by itself, when its kernels are compiled
        context: trt.IExecutionContext | None
        if rtx and options != GpuOptions():
            self._rtx = RtxRuntime(self._module, self._engine, options)
            context = self._engine.create_execution_context(self._rtx.config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise load_error(self._module, self._flavour, self._gpu, path)
        return context

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
        shape = tuple(None if size < 0 else size for size in _sizes(self._engine.get_tensor_shape(name)))
        return TensorSpec(name, str(dtype), shape)

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = _sizes(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise InputError(f"the output '{name}' has a shape that depends on the data; engines here have fixed ones")
        return shape


def _sizes(dims: trt.Dims) -> tuple[int, ...]:
    return tuple(int(dims[i]) for i in range(len(dims)))
