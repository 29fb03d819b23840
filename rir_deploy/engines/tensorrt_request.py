"""One request at a time on a TensorRT engine. Not yet run on a GPU: written to NVIDIA's Python API reference (10.3 to
11.4, RTX 1.7), and tested against stand-ins that check the order of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.engines.cuda_buffers import CudaBuffers
from rir_deploy.engines.cuda_events import CudaEvents
from rir_deploy.engines.cuda_graph import CudaGraph
from rir_deploy.engines.cuda_stream import CudaStream
from rir_deploy.engines.gpu_options import GpuOptions, GpuTimes
from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_log import logger_of
from rir_deploy.errors import BackendError, InputError

if TYPE_CHECKING:
    import tensorrt as trt

# The marks of a request: before the upload, before and after the kernels, after the download.
_BEGIN, _UPLOADED, _COMPUTED, _END = range(4)


class TensorRtRequest:
    """One execution context, one stream, buffers as large as the largest batch so far. Closing frees them.

    ``options.cuda_graph``: replay the kernels of a shape as a CUDA graph. False for RTX, which captures by itself.
    """

    def __init__(self, module: TensorRt, context: trt.IExecutionContext, cudart: Any, options: GpuOptions) -> None:
        self._module, self._options = module, options
        self.context: trt.IExecutionContext | None = context
        self._stream = CudaStream(cudart)
        self._buffers = CudaBuffers(self._stream)
        self._graph: CudaGraph | None = None
        # The shape that the context and the buffers are set to, and whether it has run since.
        self._bound: tuple[int, ...] | None = None
        self._warm = False
        self._enqueued_ns = 0
        self._events: CudaEvents | None = None
        try:
            if options.on_times is not None:
                self._events = CudaEvents(self._stream, 4)
        except BaseException:
            self._stream.close()
            raise

    @property
    def in_graph(self) -> bool:
        return self._graph is not None

    def run(self, batch: Array, given: TensorSpec, outputs: Sequence[TensorSpec]) -> dict[str, Array]:
        """One synchronous request, with both copies where the options say so; no outputs without."""
        batch = np.ascontiguousarray(batch)
        transfers = self._options.transfers
        try:
            if batch.shape != self._bound:
                self._bind(batch, given, outputs)
            wanted = outputs if transfers else ()
            results = {spec.name: np.empty(self._output_shape(spec.name), spec.dtype) for spec in wanted}
            self._mark(_BEGIN)
            if transfers:
                self._buffers.upload(given.name, batch)
            self._mark(_UPLOADED)
            self._compute()
            self._mark(_COMPUTED)
            for name, result in results.items():
                self._buffers.download(name, result)
            self._mark(_END)
        finally:
            self._stream.synchronize()  # also on failure: copies under way still read the batch
        self._tell_times()
        return results

    def unbind(self) -> None:
        """Forget the shape: something else changes the context."""
        self._bound, self._warm = None, False
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def close(self) -> None:
        """The graph and the context first: they use the buffers and the stream, which go last."""
        try:
            self.unbind()
        finally:
            self.context = None
            self._buffers.close()
            if self._events is not None:
                self._events.close()
            self._stream.close()

    def _compute(self) -> None:
        """With CUDA graphs: the first run of a shape as it is, the second is captured, all later ones replay it."""
        if self._graph is None and self._options.cuda_graph and self._warm:
            self._graph = CudaGraph(self._stream, self._enqueue)
        start = perf_counter_ns()
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._enqueued_ns = perf_counter_ns() - start
        self._warm = True

    def _enqueue(self) -> None:
        if not self._open_context().execute_async_v3(self._stream.handle):
            reason = logger_of(self._module).heard.last_error()
            raise BackendError(f"the engine did not run: {reason}; build it again")

    def _bind(self, batch: Array, given: TensorSpec, outputs: Sequence[TensorSpec]) -> None:
        """Set shape and addresses. A graph captured before is undone first: it would be launched on what is gone."""
        self.unbind()
        context, shape = self._open_context(), batch.shape
        if given.shape[0] is None and not context.set_input_shape(given.name, shape):
            reason = logger_of(self._module).heard.last_error()
            raise BackendError(f"the engine refuses the shape {shape}: {reason}; build it again")
        sizes = {spec.name: (spec, self._output_shape(spec.name)) for spec in outputs}
        for name, (spec, size) in {given.name: (given, shape), **sizes}.items():
            size_bytes = int(np.prod(size, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            if not context.set_tensor_address(name, self._buffers.reserve(name, size_bytes)):
                reason = logger_of(self._module).heard.last_error()
                raise BackendError(f"the engine does not take a buffer for '{name}': {reason}; build it again")
        if not self._options.transfers:
            self._buffers.upload(given.name, batch)
        self._bound = shape

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = sizes_of(self._open_context().get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise InputError(f"the output '{name}' has a shape that depends on the data; engines here have fixed ones")
        return shape

    def _open_context(self) -> Any:
        assert self.context is not None  # a session closes a request once nothing runs on it
        return self.context

    def _mark(self, index: int) -> None:
        if self._events is not None:
            self._events.mark(index)

    def _tell_times(self) -> None:
        if self._events is None or self._options.on_times is None:
            return
        copies = self._options.transfers
        times = GpuTimes(
            upload_ms=self._events.between_ms(_BEGIN, _UPLOADED) if copies else None,
            compute_ms=self._events.between_ms(_UPLOADED, _COMPUTED),
            download_ms=self._events.between_ms(_COMPUTED, _END) if copies else None,
            enqueue_ms=self._enqueued_ns / 1e6,
        )
        self._options.on_times(times)


def sizes_of(dims: trt.Dims) -> tuple[int, ...]:
    return tuple(int(dims[i]) for i in range(len(dims)))
