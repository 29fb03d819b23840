"""The time of an engine's layers by its runtime's profiler, as one job in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rir_deploy.bench.process import Job
from rir_deploy.engines.base import input_spec
from rir_deploy.engines.node_times import NodeTime, time_nodes
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.bench_images import random_batch
from rir_deploy.pipeline.roofline_layers import GraphLayer

# Profiled calls: as many as take so long, within these bounds.
_MS, RUNS, _MOST = 500.0, 30, 300
_WARMUP = 5


@dataclass(frozen=True)
class LayerTimes:
    """``layers``: ms of each layer, in their order, None where the runtime does not tell it apart from others; ``rest``
    is whatever else ran.
    """

    layers: tuple[float | None, ...]
    rest: tuple[NodeTime, ...]


def profile_layers(job: Job) -> Job:
    """The nodes of an engine with their times.

    The job: ``backend``, ``engine`` (the runtime's file), ``graph`` (the ONNX file it was built from), ``batch``,
    ``image`` ([C, H, W] or None) and ``threads``. The caller has checked the engine.
    """
    image = tuple(job["image"]) if job["image"] else None
    batch = random_batch(input_spec(load_onnx(Path(job["graph"]))), job["batch"], image)
    engine = Path(job["engine"])
    first = sum(node.ms for node in time_nodes(job["backend"], engine, batch, job["threads"], _WARMUP))
    runs = max(RUNS, min(_MOST, round(_MS / max(first, 1e-3))))
    return {"nodes": [asdict(one) for one in time_nodes(job["backend"], engine, batch, job["threads"], runs)]}


def assign_times(layers: Sequence[GraphLayer], nodes: Sequence[NodeTime]) -> LayerTimes:
    """Which node of a runtime is which layer, by the names that it keeps of the graph's nodes.

    A layer that runs in several nodes takes their sum; a node that holds several layers is told of none.
    """
    times: list[float | None] = [None] * len(layers)
    rest = []
    for node in nodes:
        found = [index for index, layer in enumerate(layers) if layer.names & set(node.names)]
        if len(found) == 1:
            times[found[0]] = (times[found[0]] or 0.0) + node.ms
        else:
            rest.append(node)
    return LayerTimes(tuple(times), tuple(rest))
