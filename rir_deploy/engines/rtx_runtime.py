"""What TensorRT-RTX does while an engine runs: it compiles kernels for the GPU, and replays them as one CUDA graph.

Not yet run on a GPU: written to the API reference of RTX 1.7 and tested on stand-ins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rir_deploy.artifacts import atomic_file
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.errors import BackendError, UsageError


class RtxRuntime:
    """The settings of an execution context; they have to outlive it.

    ``notes`` says what is in force, for the record of what ran.

    Raises:
        UsageError: the runtime cache cannot be read.
        BackendError: RTX does not take the CUDA graph strategy.
    """

    def __init__(self, module: Any, engine: Any, options: GpuOptions) -> None:
        self.config = engine.create_runtime_config()
        self.notes: list[str] = []
        self._cache: Any = None
        self._path = options.runtime_cache
        self._known = b""
        if options.cuda_graph:
            strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.config.cuda_graph_strategy = strategy
            if self.config.cuda_graph_strategy != strategy:
                raise BackendError("TensorRT-RTX does not run this engine in a CUDA graph; load it without")
            self.notes.append("in a CUDA graph")
        if self._path is not None:
            self._read_cache(self._path)

    def save(self) -> None:
        """Write the kernels that were compiled to the cache's file, if there are any new ones."""
        if self._cache is None or self._path is None:
            return
        data = bytes(memoryview(self._cache.serialize()))
        if data != self._known:
            with atomic_file(self._path, force=True) as temporary:
                temporary.write_bytes(data)

    def _read_cache(self, path: Path) -> None:
        try:
            self._known = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise UsageError(f"cannot read the runtime cache '{path}': {error.strerror}; name another file") from error
        cache = self.config.create_runtime_cache()
        # One of another GPU, driver or version is no use, and no reason not to run: it is begun anew.
        taken = bool(self._known) and cache.deserialize(self._known)
        self.config.set_runtime_cache(cache)
        self._cache = cache
        self.notes.append(f"runtime cache {'read' if taken else 'begun'}")
