"""An engine's kernels as one CUDA graph. Not yet run on a GPU; see `cuda_stream.py`.

A graph holds the addresses and the shapes it was captured with: after either changes it may not be launched again
("CUDA Graphs" in TensorRT's best practices).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rir_deploy.engines.cuda_stream import CudaStream


class CudaGraph:
    """What ``enqueue`` starts on a stream, captured once.

    Raises:
        BackendError: something in it cannot be captured.
    """

    def __init__(self, stream: CudaStream, enqueue: Callable[[], None]) -> None:
        self._stream = stream
        self._graph: Any = None
        self._executable: Any = None
        mode = stream.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        stream.call("cudaStreamBeginCapture", stream.object, mode)
        try:
            try:
                enqueue()
            finally:  # a stream left in capture takes no other work
                self._graph = stream.call("cudaStreamEndCapture", stream.object)
            self._executable = stream.call("cudaGraphInstantiate", self._graph, 0)
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        self._stream.call("cudaGraphLaunch", self._executable, self._stream.object)

    def close(self) -> None:
        """A second call does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._stream.call("cudaGraphExecDestroy", executable)
        graph, self._graph = self._graph, None
        if graph is not None:
            self._stream.call("cudaGraphDestroy", graph)
