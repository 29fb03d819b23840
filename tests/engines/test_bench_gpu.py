"""bench with CUDA graphs and RTX's runtime cache, on stand-ins."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.rows import rows_to_dicts
from rir_deploy.engines.base import BatchRange, BuildOptions, input_spec, output_specs
from rir_deploy.engines.manifest import Manifest, record_file, write_manifest
from rir_deploy.pipeline.bench_contenders import Contender
from rir_deploy.pipeline.bench_open import open_contender
from rir_deploy.pipeline.bench_trial import Trial, row_of
from rir_deploy.pipeline.bench_worker import work
from rir_deploy.report.reader import read_record
from rir_deploy.report.schema_bench import BenchResult
from tests.engines.graphs import classifier
from tests.engines.stand_ins import StandIn, stand_in


def engine(found: StandIn, folder: Path) -> Path:
    """An engine's folder, as the pipeline writes it."""
    model = classifier()
    ir.save(model, folder / "graph.onnx")
    built = found.backend.build(model, folder, BuildOptions(BatchRange(1, 2, 8)))
    manifest = Manifest(
        backend=built.backend,
        backend_version=built.backend_version,
        precision="fp32",
        engine=record_file(folder / built.file),
        graph=record_file(folder / "graph.onnx"),
        input=input_spec(model),
        outputs=output_specs(model),
        parents={},
        recipe=None,
        batch=(1, 2, 8),
        targets=built.targets,
        gpu=built.gpu,
    )
    write_manifest(folder, manifest)
    return folder


def use(found: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("engines.loading", "pipeline.bench_open"):
        monkeypatch.setattr(f"rir_deploy.{module}.get_backend", lambda name: found.backend)


QUICK = BenchOptions(warmup_ms=0, warmup_iterations=2, duration_s=0, iterations=5).to_dict()


@pytest.mark.parametrize("version", ["11.4.0", "1.7.1"])
@pytest.mark.parametrize(("mode", "streams"), [("synchronous", 1), ("pipelined", 3)])
@pytest.mark.parametrize("transfers", [True, False])
def test_the_gpus_own_times_go_into_the_answer(
    version: str, mode: str, streams: int, transfers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in's GPU takes 1 ms a copy and 4 ms for the kernels; its clock is one for all streams."""
    job = {"path": str(tmp_path), "kind": "engine", "batch": 2, "threads": 1, "options": QUICK, "mode": mode}
    with stand_in(version) as found:
        engine(found, tmp_path)
        use(found, monkeypatch)
        answer = work({**job, "streams": 3, "transfers": transfers})
    assert answer["streams"] == streams
    assert len(answer["times_ns"]) == 5
    assert list(answer["gpu_ms"]) == (
        ["upload", "compute", "download", "enqueue"] if transfers else ["compute", "enqueue"]
    )
    assert all(len(values) == 5 for values in answer["gpu_ms"].values())
    if mode == "synchronous":
        assert answer["gpu_ms"]["compute"] == [4.0] * 5


def test_what_the_bench_records_is_what_a_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's GPU takes 4 ms for the kernels; the rest is held against the worker's raw times."""
    job = {"path": str(tmp_path), "kind": "engine", "batch": 2, "threads": 1, "options": QUICK, "mode": "synchronous"}
    with stand_in("11.4.0") as found:
        engine(found, tmp_path)
        use(found, monkeypatch)
        answer = work({**job, "transfers": False})
    trial = Trial(Contender(tmp_path, "engine", "tensorrt", "fp32", "ab" * 32), 2, "synchronous", [answer])
    row = row_of(trial, BenchOptions(threads=1), {"cuda_graph": False, "transfers": False})
    read = read_record(BenchResult, json.loads(json.dumps(rows_to_dicts([row])[0])), "row")
    assert (read.cuda_graph, read.transfers, read.import_ms) == (False, False, answer["import_ms"])
    assert read.engine_memory_mb == answer["peak_mb"] - answer["held_mb"]
    assert set(read.gpu_ms) == {"compute", "enqueue"}
    compute, enqueue = read.gpu_ms["compute"], read.gpu_ms["enqueue"]
    assert {compute.min, compute.mean, compute.median, compute.p90, compute.p95, compute.p99, compute.max} == {4.0}
    assert enqueue.max == max(answer["gpu_ms"]["enqueue"])
    assert read.latency_ms is not None
    assert read.latency_ms.std == pytest.approx(statistics.stdev(ns / 1e6 for ns in answer["times_ns"]))
    ordered = sorted(answer["times_ns"])  # of 5 calls, the 75th and 25th percentiles by nearest rank are these
    assert read.latency_ms.iqr == pytest.approx((ordered[3] - ordered[1]) / 1e6)


@pytest.mark.parametrize(
    ("version", "words"), [("10.3.0", "in a CUDA graph"), ("1.7.1", "in a CUDA graph, runtime cache")]
)
def test_what_was_asked_for_is_what_is_timed_and_said(
    version: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: dict[str, Any] = {"path": str(tmp_path), "kind": "engine", "batch": 2, "threads": 1}
    asked = {"cuda_graph": True, "runtime_cache": str(tmp_path / "kernels"), "trust": False}
    with stand_in(version) as found:
        engine(found, tmp_path)
        use(found, monkeypatch)
        with open_contender({**job, **asked}) as opened:
            for _ in range(3):
                opened.run()
            assert words in opened.runs_on()
        with open_contender(job) as opened:
            for _ in range(3):
                opened.run()
            assert opened.runs_on() == f"{found.backend.name} {version} NVIDIA L4 (sm89)"
    assert (tmp_path / "kernels").exists() is (version == "1.7.1")  # the full TensorRT compiles nothing at run time


def test_other_engines_are_timed_beside_them_as_they_are(tmp_path: Path) -> None:
    ir.save(classifier(), tmp_path / "model.onnx")
    job = {"path": str(tmp_path / "model.onnx"), "kind": "onnx", "batch": 2, "threads": 1, "cuda_graph": True}
    with open_contender(job) as opened:
        opened.run()
        assert opened.runs_on().endswith("CPUExecutionProvider")
