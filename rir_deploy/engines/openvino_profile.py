"""OpenVINO beside its sessions: in another precision than the graph's, and with its profiler on."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rir_deploy.engines.base import Array
from rir_deploy.engines.node_times import NodeTime
from rir_deploy.engines.openvino import DEVICE, load_runtime, precision_hint, read_model
from rir_deploy.errors import BackendError

_ORIGINALS = "originalLayersNames"


def run_in_bf16(engine: Path, threads: int) -> Callable[[Array], object]:
    """A call of an FP32 engine computed in BF16.

    Raises:
        BackendError: OpenVINO is not installed, or this CPU does not compute in BF16.
        InputError: OpenVINO does not take the engine.
    """
    compiled = _compile(engine, threads, INFERENCE_PRECISION_HINT="bf16")
    real = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if real != "bf16":
        raise BackendError(f"OpenVINO was asked for bf16 and runs in {real}: this CPU does not compute in it")
    request = compiled.create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)


def profile_openvino(engine: Path, batch: Array, threads: int, runs: int) -> list[NodeTime]:
    """See `node_times.time_nodes`."""
    ov = load_runtime()
    core = ov.Core()
    hint = precision_hint(
        read_model(core, str(engine), f"'{engine}'"), core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    )
    compiled = _compile(engine, threads, INFERENCE_PRECISION_HINT=hint, PERF_COUNT=True)
    request = compiled.create_infer_request()
    seen: dict[str, list[float]] = {}
    for _ in range(runs):
        request.infer({0: batch}, share_inputs=True)
        for node in request.get_profiling_info():
            if str(node.status).endswith("EXECUTED"):
                seen.setdefault(node.node_name, []).append(node.real_time.total_seconds() * 1000)
    infos = {
        str(node.get_friendly_name()): node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()
    }
    return [
        NodeTime(_originals(infos.get(name), name), _text(infos.get(name), "layerType"), statistics.median(times))
        for name, times in seen.items()
    ]


def _compile(engine: Path, threads: int, **config: object) -> Any:
    core = load_runtime().Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads, **config}
    try:
        return core.compile_model(read_model(core, str(engine), f"'{engine}'"), DEVICE, settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile '{engine}' so: {str(error).strip().splitlines()[-1]}") from error


def _originals(info: Any, name: str) -> tuple[str, ...]:
    names = _text(info, _ORIGINALS).split(",")
    return tuple(dict.fromkeys([name, *(one for one in names if one)]))


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if info is not None and key in info else ""
