"""A run's record written by hand: every figure in it is odd enough to be found again on the page."""

from __future__ import annotations

from typing import Any

from tests.report.sample_losses import PICTURE, block, flipped, layers, stages

CHECKPOINT, FP32, INT8, FOREIGN = "ab" * 32, "cd" * 32, "ef" * 32, "0123456789abcdef" * 4


def sample() -> dict[str, Any]:
    """Two engines that passed, one that failed to be run and was simulated, latency at two batch sizes."""
    return {
        "schema": 3,
        "tool": "rir-deploy 0.1.0",
        "created": "2026-02-03T04:05:06+00:00",
        "passed": True,
        "machine": machine("Imaginary 9000"),
        "recipe": "digits",
        "data": "digits:test",
        "model": {
            "checkpoint": "training/model.safetensors",
            "sha256": CHECKPOINT,
            "layout": "rir-deploy",
            "parameters": 19434,
            "recorded_top1": 0.9917,
        },
        "export": _export(),
        "graphs": [
            _graph("fp32", "fp32", None, 80867, FP32, []),
            {
                **_graph("int8-cpu", "int8", "cpu", 38123, INT8, [{"node": "Conv_0", "reason": "one input channel"}]),
                "calibration": calibration(),
                "sensitivity": sensitivity(),
            },
        ],
        "calibration": {"data": "digits:train", "images": 512, "method": "minmax"},
        "engines": engines(),
        "unfolded": unfolded(),
        "pictures": {"41": PICTURE},
        "stages": stages(),
        "layers": layers(),
        "block": block(),
        "bench": bench(),
        "files": [
            {"path": "training/model.safetensors", "sha256": CHECKPOINT, "size_bytes": 79321, "parents": []},
            {"path": "graphs/fp32.onnx", "sha256": FP32, "size_bytes": 80867, "parents": [CHECKPOINT, FOREIGN]},
        ],
    }


def machine(cpu: str) -> dict[str, Any]:
    return {
        "system": "Linux 6.1 x86_64",
        "python": "3.11.7",
        "cpu": cpu,
        "cores": 6,
        "memory_gb": 25.3,
        "features": ["AVX2", "AVX512-VNNI"],
        "gpus": [],
        "driver": None,
    }


def _export() -> dict[str, Any]:
    return {
        "opset": 20,
        "seconds": 7.41,
        "work": {},
        "check": {"on": "100 images of digits:test", "passed": True, "max_abs_error": 2.864e-6, "agreement": 1.0},
        "fold": {
            "modified": True,
            "convs": {"before": 20, "after": 6},
            "nodes": {"before": 52, "after": 12},
            "macs": {"before": 532480, "after": 530432},
            "params": {"before": 19435, "after": 19018},
            "weight_bytes": {"before": 77736, "after": 76072},
            "ops": {"before": {"Add": 12, "Conv": 20, "Relu": 11}, "after": {"Conv": 6, "Relu": 5}},
            "refused": [{"node": "Pool_3", "reason": "it averages over padding"}],
        },
    }


def _graph(name: str, precision: str, flavour: str | None, size: int, digest: str, kept: list[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "file": f"graphs/{name}.onnx",
        "precision": precision,
        "flavour": flavour,
        "size_bytes": size,
        "sha256": digest,
        "kept": kept,
        "calibration": None,
        "sensitivity": None,
    }


def calibration() -> dict[str, Any]:
    """Three ways that were measured; the second best was taken."""
    ways = [("mse", True, 40.27), ("entropy", True, 39.16), ("minmax", False, 33.04)]
    measured = [_way(method, equalized, sqnr_db) for method, equalized, sqnr_db in ways]
    return {"images": 501, **measured[1], "candidates": measured}


def _way(method: str, equalized: bool, sqnr_db: float) -> dict[str, Any]:
    return {"method": method, "rounding": "gptq", "equalized": equalized, "sqnr_db": sqnr_db}


def sensitivity() -> dict[str, Any]:
    """Three layers, the worst of which stays in float to hold a budget."""
    return {
        "images": 127,
        "max_drop": 0.25,
        "drop": 0.0013,
        "drop_test": {
            "lost": 40,
            "gained": 27,
            "interval": [-0.03, 0.294],
            "mcnemar_p": 0.14,
            "margin": 0.25,
            "verdict": "undecided",
            "images_needed": 366000,
        },
        "layers": [
            _layer("Conv_7", ["block1/r", "block1/t"], 26.02, kept=True) | {"block": "layers.1"},
            _layer("Conv_0", [], 46.02, kept=False) | {"block": "stem", "stream": "residual"},
            _layer("Gemm_9", ["logits"], None, kept=False),
        ],
    }


def _layer(node: str, members: list[str], sqnr_db: float | None, *, kept: bool) -> dict[str, Any]:
    return {"node": node, "block": None, "stream": None, "members": members, "sqnr_db": sqnr_db, "kept": kept}


def ranking(layers: int) -> dict[str, Any]:
    """As many layers, from 30 dB upwards."""
    rows = [
        _layer(f"relu_{2 * i}+relu_{2 * i + 1}.conv/Conv", [f"relu_{i}"], 30.0 + i, kept=False) for i in range(layers)
    ]
    return {"images": 128, "max_drop": None, "drop": None, "drop_test": None, "layers": rows}


def unfolded() -> dict[str, Any]:
    """An engine that is better at SQNR, level at top-1, and worse at agreement, latency and size."""
    graph = _graph("int8-cpu-unfolded", "int8", "cpu", 51234, "ba" * 32, [])
    verify = {**proof(0.9721, 1.95, 0.2031, 30.31), "agreement": 0.95}
    return {
        "graphs": [
            _graph("fp32-unfolded", "fp32", None, 98765, "dc" * 32, []),
            {**graph, "calibration": calibration()},
        ],
        "engines": [_engine("openvino-int8-unfolded", "openvino", "int8", 87654, 0.61, verify)],
    }


def engines() -> list[dict[str, Any]]:
    return [
        {
            **_engine("openvino-fp32", "openvino", "fp32", 116022, 0.13, proof(0.9919, -0.02, 3.814e-6, 130.12)),
            "reason": "it computes in BF16",
        },
        _engine("openvino-int8", "openvino", "int8", 61234, 0.48, flipped(proof(0.9889, 0.28, 0.2146, 28.31))),
        {
            **_engine("tensorrt-rtx-fp16", "tensorrt-rtx", "fp16", 2481234, 4.37, proof(0.9905, 0.12, 0.0171, 61.94)),
            "targets": ["sm86", "sm89"],
            "status": "built, not run",
            "reason": "no GPU",
            "verify": {
                **proof(0.9905, 0.12, 0.0171, 61.94),
                "simulation": True,
                "candidate": {"top1": 0.9905, "top5": 0.9996, "runs_on": "simulation: its graph, in runtime 7.8.9"},
            },
        },
    ]


def _engine(
    name: str, backend: str, precision: str, size: int, seconds: float, verify: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "backend": backend,
        "backend_version": "7.8.9",
        "precision": precision,
        "flavour": "cpu" if precision == "int8" else None,
        "size_bytes": size,
        "targets": [],
        "seconds": seconds,
        "realized": {"hint": "f32", "conv": {"i8": 6}},
        "status": "verified",
        "reason": "",
        "verify": verify,
    }


def proof(top1: float, drop: float, error: float, sqnr_db: float) -> dict[str, Any]:
    return {
        "passed": True,
        "failures": [],
        "simulation": False,
        "images": 359,
        "reference": {"top1": 0.9917, "top5": 1.0, "runs_on": "torch 2.13 cpu eager"},
        "candidate": {"top1": top1, "top5": 0.9996, "runs_on": "runtime 7.8.9 CPU"},
        "agreement": 0.9973,
        "top1_drop": drop,
        "max_abs_error": error,
        "mean_abs_error": 6.32e-7,
        "sqnr_db": sqnr_db,
        "gate": {"precision": "int8", "min_agreement": 0.971, "max_top1_drop": 1.02, "atol": None, "rtol": 0.0003},
        "drop": {
            "lost": 3,
            "gained": 2,
            "interval": [drop - 0.91, drop + 1.13],
            "mcnemar_p": 0.623,
            "margin": 1.02,
            "verdict": "non-inferior" if drop + 1.13 < 1.02 else "undecided",
            "images_needed": None if drop + 1.13 < 1.02 else 1234,
        },
        "flipped": 0,
        "flips": [],
        "distinct_images": 359,
        "doubts": [],
        "classes": [lost("three", 37, 1.0, 0.0), lost("eight", 37, 0.9324, 4.06)],
        "worst_class": lost("eight", 37, 0.9324, 4.06),
    }


def lost(name: str, images: int, recall: float, drop: float) -> dict[str, Any]:
    """A class of a proof."""
    figures = {"reference": 0.973, "candidate": recall, "drop": drop, "interval": [drop - 6.2, drop + 10.4], "p": 0.2}
    return {"name": name, "images": images, **figures}


def bench() -> dict[str, Any]:
    return {
        "machine": machine("Other 7"),
        "settings": {"warmup_ms": 200.0, "rounds": 3, "batches": [1, 8], "mode": "synchronous"},
        "notes": ["the machine was busy before the start"],
        "results": [
            timed("training/model.safetensors", "pytorch", "fp32", 1, (0.815, 0.913, 0.978, 1.516), 1227.3, 1.0),
            timed("engines/openvino-int8", "openvino", "int8", 1, (0.021, 0.032, 0.034, 0.062), 45123.4, 38.81),
            untimed("engines/tensorrt-rtx-fp16", 1),
            timed("engines/openvino-int8-unfolded", "openvino", "int8", 1, (0.042, 0.051, 0.055, 0.08), 23802.1, 19.4),
            timed("training/model.safetensors", "pytorch", "fp32", 8, (1.101, 1.233, 1.321, 2.047), 7266.1, 1.0),
            timed("engines/openvino-int8", "openvino", "int8", 8, (0.099, 0.111, 0.119, 0.184), 80808.1, 11.12),
            untimed("engines/tensorrt-rtx-fp16", 8),
        ],
    }


def timed(
    engine: str, backend: str, precision: str, batch: int, ms: tuple[float, ...], rate: float, speedup: float
) -> dict[str, Any]:
    return {
        "engine": engine,
        "backend": backend,
        "precision": precision,
        "batch": batch,
        "status": "ok",
        "latency_ms": dict(zip(("median", "p90", "p95", "p99"), ms, strict=True)) | {"max": 2 * ms[3]},
        "load_ms": 17.31,
        "throughput_per_s": rate,
        "speedup": speedup,
        "warnings": ["wide spread"] if batch == 8 and backend == "pytorch" else [],
    }


def untimed(engine: str, batch: int) -> dict[str, Any]:
    return {
        "engine": engine,
        "backend": "tensorrt-rtx",
        "precision": "fp16",
        "batch": batch,
        "status": "not run",
        "reason": "no NVIDIA driver",
        "latency_ms": None,
        "throughput_per_s": None,
    }


def _strings(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all texts in the record."""
    if isinstance(data, dict):
        return [place for key, value in data.items() for place in _strings(value, (*path, key))]
    if isinstance(data, list):
        return [place for index, value in enumerate(data) for place in _strings(value, (*path, index))]
    if not isinstance(data, str) or path[0] == "pictures" or path[-1] in ("status", "verdict"):
        return []
    return [] if path[0] == "block" and (path[-1] == "name" or "inputs" in path) else [path]


def fill(run: dict[str, Any], words: str) -> None:
    """Put ``words`` into every text of a record."""
    for place in _strings(run):
        target: Any = run
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = words
