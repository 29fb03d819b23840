"""Device memory. Not yet run on a GPU; see `cuda_stream.py`."""

from __future__ import annotations

from rir_deploy.engines.base import Array
from rir_deploy.engines.cuda_stream import CudaStream


class CudaBuffers:
    """Device buffers by name, which grow and never shrink, filled and read through one stream.

    Every method raises BackendError with CUDA's own words where a call fails.
    """

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self._addresses: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def reserve(self, name: str, size_bytes: int) -> int:
        """The address of a buffer of at least ``size_bytes``."""
        if self._sizes.get(name, -1) < size_bytes:
            self._release(name)
            self._addresses[name] = int(self._stream.call("cudaMalloc", max(size_bytes, 1)))
            self._sizes[name] = size_bytes
        return self._addresses[name]

    def upload(self, name: str, array: Array) -> None:
        """Start copying a contiguous array to its buffer; it has to live until the stream is synchronised."""
        kind = self._stream.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self._addresses[name], array.ctypes.data, array.nbytes, kind)

    def download(self, name: str, array: Array) -> None:
        """Start copying a buffer into a contiguous array; filled when the stream is synchronised."""
        kind = self._stream.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, self._addresses[name], array.nbytes, kind)

    def close(self) -> None:
        """Free every buffer; a second call does nothing."""
        for name in list(self._addresses):
            self._release(name)

    def _copy(self, target: int, source: int, size_bytes: int, kind: object) -> None:
        self._stream.call("cudaMemcpyAsync", target, source, size_bytes, kind, self._stream.object)

    def _release(self, name: str) -> None:
        self._sizes.pop(name, None)
        address = self._addresses.pop(name, None)
        if address is not None:
            self._stream.call("cudaFree", address)
