"""Device memory and one stream, through NVIDIA's cuda-python. Not yet run on a GPU: written to the CUDA Runtime API
manual, and tested against a stand-in that keeps its device memory on the host.
"""

from __future__ import annotations

import importlib
from typing import Any

from rir_deploy.engines.base import Array
from rir_deploy.errors import BackendError

# cuda-python before 12.6, which JetPack 6 may have, keeps the same functions in the second module.
_MODULES = ("cuda.bindings.runtime", "cuda.cudart")


def load_cudart(install: str) -> Any:
    """The CUDA runtime's module; BackendError with the line that installs it."""
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            continue
    raise BackendError(f"cuda-python is not installed, which runs engines on the GPU; run: {install}")


class CudaBuffers:
    """Device buffers by name, which grow and never shrink, and the stream that fills and reads them.

    Every method raises BackendError with CUDA's own words where a call fails.
    """

    def __init__(self, cudart: Any) -> None:
        self._cudart = cudart
        self._addresses: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._stream: Any = self._call("cudaStreamCreate")

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream)

    def reserve(self, name: str, size_bytes: int) -> int:
        """The address of a buffer of at least ``size_bytes``."""
        if self._sizes.get(name, -1) < size_bytes:
            self._release(name)
            self._addresses[name] = int(self._call("cudaMalloc", max(size_bytes, 1)))
            self._sizes[name] = size_bytes
        return self._addresses[name]

    def upload(self, name: str, array: Array) -> None:
        """Start copying a contiguous array to its buffer; it has to live until `synchronize`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        target = self.reserve(name, array.nbytes)
        self._call("cudaMemcpyAsync", target, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, name: str, array: Array) -> None:
        """Start copying a buffer into a contiguous array; filled after `synchronize`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, self._addresses[name], array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all that was started."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free every buffer and the stream; a second call does nothing."""
        for name in list(self._addresses):
            self._release(name)
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._call("cudaStreamDestroy", stream)

    def _release(self, name: str) -> None:
        self._sizes.pop(name, None)
        address = self._addresses.pop(name, None)
        if address is not None:
            self._call("cudaFree", address)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Every function returns (error, result...); the result, where there is one."""
        error, *results = getattr(self._cudart, function)(*arguments)
        if int(error) != 0:
            text = self._cudart.cudaGetErrorString(error)[1]
            reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            raise BackendError(f"{function} failed: {reason}; free GPU memory or restart the program")
        return results[0] if results else None
