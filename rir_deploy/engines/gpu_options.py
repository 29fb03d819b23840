"""How an engine is run on a GPU, and what its requests took there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GpuTimes:
    """One request by CUDA events, in ms; the copies are None where there were none.

    ``enqueue_ms`` is by the host's clock: how long it took to launch what ``compute_ms`` then took on the GPU.
    """

    upload_ms: float | None
    compute_ms: float
    download_ms: float | None
    enqueue_ms: float


@dataclass(frozen=True)
class GpuOptions:
    """How TensorRT and TensorRT-RTX run an engine.

    Attributes:
        cuda_graph: replay the engine's kernels as one CUDA graph, captured for each batch size in turn.
        runtime_cache: file in which TensorRT-RTX keeps the kernels it compiles; read when the engine is loaded,
            written when it is closed. It holds native code: name only a file of your own.
        transfers: copy the input to the GPU and the outputs back at every run. Without, for timings: the input of a
            shape is copied once, and a run returns no outputs.
        on_times: called with the times of every run, from the thread that made it.
    """

    cuda_graph: bool = False
    runtime_cache: Path | None = None
    transfers: bool = True
    on_times: Callable[[GpuTimes], object] | None = None

    @property
    def calls(self) -> dict[str, object]:
        """How a request is made, as plain data: what its times depend on."""
        return {"cuda_graph": self.cuda_graph, "transfers": self.transfers}
