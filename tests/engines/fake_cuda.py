"""CUDA's runtime and its graphs on host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any


class FakeCudart:
    """``fail`` names a function that answers with an error. ``log`` holds what was done with graphs."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.created = 70
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: list[Callable[[], None]] | None = None
        # The addresses that the work under capture, and each graph, holds.
        self.captured: set[int] = set()
        self.held: dict[int, set[int]] = {}
        self.log: list[str] = []
        self.fail = ""
        self.allocations = 0
        # Events know the time at which they were passed: copies and kernels take what the test says, in ms.
        self.now_ms, self.copy_ms, self.compute_ms = 0.0, 1.0, 4.0
        self.events: dict[int, float | None] = {}
        self.synchronized = 0
        self.copies: list[int] = []

    def _status(self, name: str) -> int:
        return 2 if name == self.fail else 0

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        """Work on a stream: done at once, or kept while the stream is captured."""
        assert stream in self.streams
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def in_graph(self, addresses: Iterable[int]) -> bool:
        return any(held & set(addresses) for held in self.held.values())

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"out of memory"

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        self.created += 1
        self.streams.add(self.created)
        return self._status("cudaStreamCreate"), self.created

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        self.streams.remove(stream)
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        assert stream in self.streams
        assert self.capturing is None, "a stream that is captured may not be waited for"
        self.synchronized += 1
        return (self._status("cudaStreamSynchronize"),)

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:  # noqa: N802
        if self.fail == "cudaMalloc":
            return 2, None
        self.allocations += 1
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        assert not self.in_graph([address]), "a graph that holds an address outlives it"
        del self.memory[address]
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        device = target if kind == 1 else source
        assert size <= len(self.memory[device])
        self.copies.append(kind)

        def copy() -> None:
            ctypes.memmove(target, source, size)
            self.now_ms += self.copy_ms

        self.submit(stream, copy)
        return (self._status("cudaMemcpyAsync"),)

    def cudaEventCreate(self) -> tuple[int, int | None]:  # noqa: N802
        if self.fail == "cudaEventCreate":
            return 2, None
        self.created += 1
        self.events[self.created] = None
        return 0, self.created

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:  # noqa: N802
        assert stream in self.streams
        assert self.capturing is None, "a mark within a graph would be replayed with it"
        self.events[event] = self.now_ms
        return (self._status("cudaEventRecord"),)

    def cudaEventElapsedTime(self, first: int, last: int) -> tuple[int, float]:  # noqa: N802
        begin, end = self.events[first], self.events[last]
        assert begin is not None
        assert end is not None
        return self._status("cudaEventElapsedTime"), end - begin

    def cudaEventDestroy(self, event: int) -> tuple[int]:  # noqa: N802
        del self.events[event]
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        assert (stream in self.streams, mode, self.capturing) == (True, 1, None)
        if self.fail != "cudaStreamBeginCapture":
            self.capturing = []
        return (self._status("cudaStreamBeginCapture"),)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, int | None]:  # noqa: N802
        assert self.capturing is not None
        work, self.capturing = self.capturing, None
        held, self.captured = self.captured, set()
        if self.fail == "cudaStreamEndCapture":
            return 2, None
        self.graphs[len(self.log) + 1000], self.held[len(self.log) + 1000] = work, held
        self.log.append("capture")
        return 0, len(self.log) + 999

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[int, int | None]:  # noqa: N802
        assert (graph in self.graphs, flags) == (True, 0)
        status = self._status("cudaGraphInstantiate")
        return status, None if status else -graph

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[int]:  # noqa: N802
        for work in self.graphs[-executable]:
            self.submit(stream, work)
        self.log.append("launch")
        return (self._status("cudaGraphLaunch"),)

    def cudaGraphExecDestroy(self, executable: int) -> tuple[int]:  # noqa: N802
        assert -executable in self.graphs
        return (0,)

    def cudaGraphDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        del self.graphs[graph], self.held[graph]
        self.log.append("destroy")
        return (0,)
