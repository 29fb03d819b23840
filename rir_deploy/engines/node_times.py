"""How long each node of a loaded graph takes, by the runtime's own profiler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rir_deploy.engines.base import Array
from rir_deploy.errors import UsageError


@dataclass(frozen=True)
class NodeTime:
    """A node as the runtime executes it: ``names`` of the nodes of the graph that it computes, ``op`` in the runtime's
    own words, and the median time of a call in ms.
    """

    names: tuple[str, ...]
    op: str
    ms: float


def time_nodes(backend: str, engine: Path, batch: Array, threads: int, runs: int) -> list[NodeTime]:
    """Run an engine file ``runs`` times with its profiler on; the nodes in the order in which they run.

    Profiling takes time itself: the sum is a little over a call's.

    Raises:
        UsageError: the backend has no profiler that is read here.
        BackendError, InputError: as the backend's session does.
    """
    if backend == "openvino":
        from rir_deploy.engines.openvino_profile import profile_openvino

        return profile_openvino(engine, batch, threads, runs)
    if backend == "onnxruntime":
        from rir_deploy.engines.ort_profile import profile_onnxruntime

        return profile_onnxruntime(engine, batch, threads, runs)
    raise UsageError(f"the times of nodes are read of onnxruntime and openvino, not of {backend}")
