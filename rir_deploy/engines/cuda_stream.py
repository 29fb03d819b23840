"""NVIDIA's cuda-python and one stream. Not yet run on a GPU: written to the CUDA Runtime API manual, and tested against
a stand-in that keeps its device memory on the host.
"""

from __future__ import annotations

import importlib
from typing import Any

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


class CudaStream:
    """The stream that everything of a session goes through.

    Every method raises BackendError with CUDA's own words where a call fails.
    """

    def __init__(self, cudart: Any) -> None:
        self.cudart = cudart
        self._stream: Any = self.call("cudaStreamCreate")

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return int(self._stream)

    @property
    def object(self) -> Any:
        """As CUDA takes it."""
        return self._stream

    def synchronize(self) -> None:
        """Wait for all that was started."""
        self.call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """A second call does nothing."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self.call("cudaStreamDestroy", stream)

    def call(self, function: str, *arguments: Any) -> Any:
        """Every function returns (error, result...); the result, where there is one."""
        error, *results = getattr(self.cudart, function)(*arguments)
        if int(error) != 0:
            text = self.cudart.cudaGetErrorString(error)[1]
            reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            raise BackendError(f"{function} failed: {reason}; free GPU memory or restart the program")
        return results[0] if results else None
