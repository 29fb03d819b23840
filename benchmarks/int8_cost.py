"""What a graph is and costs: its hash, bytes, convolutions, Q/DQ pairs, and time beside the plain INT8 graph."""

from __future__ import annotations

import hashlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from int8_contenders import BASELINE, Contender

from rir_deploy.artifacts import sha256_file
from rir_deploy.bench.options import BenchOptions
from rir_deploy.pipeline.bench import BenchRequest, bench_files

THREADS, ROUNDS, DURATION_S = 2, 9, 4.5


def graph_sha256(path: Path) -> str:
    """Of what a quantiser reads: not of the metadata of the file and its nodes."""
    model = onnx.load(path)
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def graph_cost(path: Path, fp32: Path) -> dict[str, Any]:
    """Size, also as a share of the FP32 file; convolutions; Q/DQ pairs on activations (weights have theirs at load)."""
    kinds = list(_openvino_kinds(path) if path.suffix == ".xml" else _onnx_kinds(path))
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.exists())
    return {
        "size_bytes": size,
        "size_share": size / fp32.stat().st_size,
        "convs": kinds.count("convolution"),
        "qdq_pairs": kinds.count("quantize"),
        "sha256": sha256_file(path),
    }


def _onnx_kinds(path: Path) -> Iterator[str]:
    graph = onnx.load(path).graph
    constants = {weight.name for weight in graph.initializer}
    for node in graph.node:
        if all(name in constants for name in node.input):
            constants.update(node.output)
        elif node.op_type == "Conv":
            yield "convolution"
        elif node.op_type == "QuantizeLinear":
            yield "quantize"


def _openvino_kinds(path: Path) -> Iterator[str]:
    import openvino

    constants = set()
    for node in openvino.Core().read_model(path).get_ordered_ops():
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if node.get_type_name() != "Parameter" and all(name in constants for name in sources):
            constants.add(node.get_friendly_name())
        elif node.get_type_name() in ("Convolution", "GroupConvolution"):
            yield "convolution"
        elif node.get_type_name() == "FakeQuantize":
            yield "quantize"


def time_graphs(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Medians of batch 1 in ONNX Runtime, each contender in processes of its own and in turns.

    ``ratios`` are to the plain INT8 graph in the same round, under 1 where faster; ``ratio`` is their median, which a
    round that the machine disturbed does not move.
    """
    labels = {}
    for row in rows:
        contender = Contender(row["name"], row["graph"], row["tool"], row["options"])
        if "error" in row or not contender.is_timed:
            continue
        path = folder / contender.file_name
        if not path.exists() or sha256_file(path) != row["sha256"]:
            sys.exit(f"'{path}' is not the graph of the results; evaluate '{row['label']}' again with --only")
        labels[str(path)] = row["label"]
    if BASELINE not in labels.values():
        sys.exit(f"the results have no '{BASELINE}' to compare with; evaluate it first")
    options = BenchOptions(duration_s=DURATION_S, rounds=ROUNDS, threads=THREADS)
    data = bench_files(BenchRequest(tuple(map(Path, labels)), options)).to_dict()
    found = {labels[row["engine"]]: row for row in data["results"]}  # type: ignore[union-attr, attr-defined]
    return {
        "baseline": BASELINE,
        "rows": [_timed(label, row, found[BASELINE]) for label, row in found.items()],
        **{key: data[key] for key in ("machine", "settings")},
    }


def _timed(label: str, row: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    if row["status"] != "ok":
        return {"label": label, "error": row["reason"]}
    rounds = zip(row["round_medians_ms"], baseline["round_medians_ms"], strict=True)
    ratios = [own / plain for own, plain in rounds]
    return {
        "label": label,
        "median_ms": row["latency_ms"]["median"],
        "p90_ms": row["latency_ms"]["p90"],
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "runs": row["runs"],
        "runs_on": row["runs_on"],
    }
