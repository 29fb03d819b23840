"""ONNX Runtime with its profiler on."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from rir_deploy.engines.base import Array
from rir_deploy.engines.node_times import NodeTime
from rir_deploy.engines.onnxruntime import BACKEND
from rir_deploy.engines.ort_provider import load_runtime
from rir_deploy.errors import InputError
from rir_deploy.file_system import scratch_folder
from rir_deploy.graph.runtime import first_line, log_severity

_KERNEL = "_kernel_time"
# What ONNX Runtime's optimisers put behind the name of a node that they rewrite.
_REWRITTEN = re.compile(r"(_token_\d+|_nchwc|_nhwc|_fused)+$")


def profile_onnxruntime(engine: Path, batch: Array, threads: int, runs: int) -> list[NodeTime]:
    """See `node_times.time_nodes`."""
    ort = load_runtime(BACKEND.provider)
    options = ort.SessionOptions()
    options.log_severity_level = log_severity()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with scratch_folder() as folder:
        options.profile_file_prefix = str(folder / "profile")
        try:
            session = ort.InferenceSession(str(engine), options, [BACKEND.provider.provider])
            for _ in range(runs):
                session.run(None, {session.get_inputs()[0].name: batch})
        except Exception as error:  # onnxruntime raises its own family of exceptions, by status code
            raise InputError(f"ONNX Runtime cannot run '{engine}' with its profiler: {first_line(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _nodes(events)


def _nodes(events: list[dict[str, Any]]) -> list[NodeTime]:
    """By the index that a node has in the optimised graph: those that the optimiser adds share their names."""
    seen: dict[str, tuple[str, str, list[float]]] = {}
    for event in events:
        name, details = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            node, op = _REWRITTEN.sub("", name.removesuffix(_KERNEL)), str(details.get("op_name", ""))
            seen.setdefault(str(details.get("node_index", node)), (node, op, []))[2].append(event["dur"] / 1000)
    return [NodeTime((name,), op, statistics.median(times)) for name, op, times in seen.values()]
