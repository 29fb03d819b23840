"""What a GPU took, by its own clock. Not yet run on a GPU; see `cuda_stream.py`."""

from __future__ import annotations

from typing import Any

from rir_deploy.engines.cuda_stream import CudaStream


class CudaEvents:
    """Marks on a stream, numbered from 0; what lies between two of them is known once the stream is synchronised.

    Every method raises BackendError with CUDA's own words where a call fails.
    """

    def __init__(self, stream: CudaStream, count: int) -> None:
        self._stream = stream
        self._events: list[Any] = []
        try:
            for _ in range(count):
                self._events.append(stream.call("cudaEventCreate"))
        except BaseException:
            self.close()
            raise

    def mark(self, index: int) -> None:
        """Put a mark behind all that was started."""
        self._stream.call("cudaEventRecord", self._events[index], self._stream.object)

    def between_ms(self, first: int, last: int) -> float:
        return float(self._stream.call("cudaEventElapsedTime", self._events[first], self._events[last]))

    def close(self) -> None:
        """A second call does nothing."""
        while self._events:
            self._stream.call("cudaEventDestroy", self._events.pop())
