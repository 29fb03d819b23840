"""roofline: layers, ceilings and the record. No test looks at how fast anything is."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.bench.options import BenchOptions
from rir_deploy.bench.rows import BenchRow
from rir_deploy.bench.summary import LatencyRecord, summarize
from rir_deploy.engines.node_times import NodeTime
from rir_deploy.errors import BackendError, InputError, UsageError
from rir_deploy.fold import list_layers, measure_work
from rir_deploy.pipeline import roofline, roofline_measure
from rir_deploy.pipeline.roofline import RooflineRequest, roofline_files
from rir_deploy.pipeline.roofline_graphs import chain_graph
from rir_deploy.pipeline.roofline_layers import graph_layers
from rir_deploy.pipeline.roofline_measure import MeasureOptions
from rir_deploy.pipeline.roofline_profile import assign_times
from rir_deploy.roofline.shapes import Shape
from tests.bench.records import samples
from tests.conftest import Runner
from tests.fold.graphs import Writer

TINY = MeasureOptions(seconds=0, rounds=1, shapes=(Shape(8, 8, (8, 8), repeats=2),), working_sets=(1 << 17,))
QUICK = BenchOptions(warmup_ms=0, duration_s=0, iterations=3, rounds=1, threads=1)


def network(size: tuple[int | str, int | str] = (8, 6)) -> ir.Model:
    """A convolution by 2, a grouped one, and a product."""
    net = Writer(dtype=np.float32)
    x = net.relu(net.conv(net.input(3, size), 4, bias=True, strides=[2, 2]))
    x = net.conv(x, 8, 3, group=2)
    flat = net.op("Flatten", [net.op("GlobalAveragePool", [x], 8)], 8)
    return net.model(net.op("Gemm", [flat, net.constant(net.rng.standard_normal((8, 5)))], 5))


def test_work_of_layers_against_sums_written_out() -> None:
    layers = graph_layers(network(), batch=3)
    assert [layer.work.macs for layer in layers] == [3 * 4 * 3 * 9 * 4 * 3, 3 * 8 * 2 * 9 * 4 * 3, 3 * 8 * 5]
    assert sum(layer.work.macs for layer in layers) == 3 * measure_work(network()).macs
    assert [layer.work.weight_bytes for layer in layers] == [4 * (4 * 3 * 9 + 4), 4 * 8 * 2 * 9, 4 * 8 * 5]
    assert [layer.work.input_bytes for layer in layers] == [3 * 4 * 3 * 48, 3 * 4 * 4 * 12, 3 * 4 * 8]
    assert [layer.work.output_bytes for layer in layers] == [3 * 4 * 4 * 12, 3 * 4 * 8 * 12, 3 * 4 * 5]
    assert [layer.shape for layer in layers] == [
        Shape(3, 4, (8, 6), stride=(2, 2), batch=3),
        Shape(4, 8, (4, 3), groups=2, batch=3),
        None,
    ]
    assert {layer.work.precision for layer in layers} == {"fp32"}


def test_int8_layers_move_bytes_and_not_floats() -> None:
    shape = Shape(6, 6, (5, 4), batch=2, repeats=2)
    first, second = graph_layers(chain_graph(shape, "int8"), batch=2)
    assert (first.work.precision, first.shape) == ("int8", Shape(6, 6, (5, 4), batch=2))
    assert first.work.macs + second.work.macs == shape.macs  # a fixed batch counts once
    assert first.work.input_bytes == first.work.output_bytes == second.work.output_bytes == 2 * 6 * 20
    assert first.work.weight_bytes == list_layers(chain_graph(shape, "int8"))[0].weight_bytes


def test_an_open_image_size_has_to_be_given() -> None:
    model = network(("height", "width"))
    with pytest.raises(UsageError, match="--recipe"):
        graph_layers(model, batch=1)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert [one.work for one in graph_layers(model, 1, (3, 8, 6))] == [one.work for one in graph_layers(network(), 1)]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_times_go_to_the_layers_that_a_runtime_names() -> None:
    layers = graph_layers(network(), batch=1)
    conv, grouped, gemm = (layer.work.node for layer in layers)
    assert layers[0].names == {"n0", "conv_0", "relu_1"}  # ONNX Runtime names it by the last, OpenVINO by the first
    nodes = [
        NodeTime(("reorder",), "Reorder", 0.5),
        NodeTime(("a", conv, "relu"), "Convolution", 1.0),
        NodeTime(("relu_1",), "Convolution", 0.25),
        NodeTime((grouped, gemm), "Fused", 2.0),
    ]
    times = assign_times(layers, nodes)
    assert times.layers == (1.25, None, None)
    assert [node.ms for node in times.rest] == [0.5, 2.0]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small network as an ONNX file, which runs in ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("engines")
    path = folder / "chain.onnx"
    net = Writer(dtype=np.float32)
    x = net.relu(net.conv(net.input(3), 8, bias=True))
    ir.save(net.model(net.conv(x, 4, 1)), path)
    return [path]


@pytest.fixture(scope="module")
def record(engines: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real one, on a tiny set of shapes, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        first = roofline_files(RooflineRequest(tuple(engines), QUICK, measure=TINY))
        again = roofline_files(RooflineRequest(tuple(engines), QUICK, measure=TINY))
    return json.loads(json.dumps([first, again]))


def test_the_record_adds_up(record: Any) -> None:
    first, _ = record
    (row,) = first["engines"]
    best = max(one["gmac_per_s"] for one in first["ceilings"] if one["precision"] == "fp32")
    assert row["macs"] == 8 * 3 * 9 * 64 + 4 * 8 * 64 == sum(layer["macs"] for layer in row["layers"])
    for layer in row["layers"]:
        assert layer["ceiling_ms"] >= layer["macs"] / best / 1e6 * (1 - 1e-9)
        assert layer["measured_ms"] > 0
        assert layer["bound"] == (
            "memory" if layer["ceiling_ms"] > layer["macs"] / best / 1e6 * (1 + 1e-9) else "compute"
        )
    assert row["ceiling_ms"] == pytest.approx(sum(layer["ceiling_ms"] for layer in row["layers"]))
    assert row["share"] == pytest.approx(row["ceiling_ms"] / row["median_ms"])
    assert row["gmac_per_s"] == pytest.approx(row["macs"] / row["median_ms"] / 1e6)
    assert first["threads"] == 1
    assert {"int8", "fp32", "fp16"} <= {one["precision"] for one in first["ceilings"]}
    assert first["copies"][0]["working_set_bytes"] == 1 << 17
    assert first["copy_gb_per_s"] == first["copies"][-1]["gb_per_s"] > 0


def test_ceilings_are_measured_once(record: Any) -> None:
    first, again = record
    assert first["cached"] == 0
    assert again["cached"] > 0
    assert again["ceilings"] == first["ceilings"]
    assert again["copies"] == first["copies"]


class Jobs:
    """In place of the processes: every shape runs at ``speed``, and what was asked for is kept."""

    def __init__(self, speed: float = 2.0) -> None:
        self.speed, self.asked = speed, []  # type: ignore[var-annotated]

    def __call__(self, _module: str, job: dict[str, Any], _name: str) -> dict[str, Any]:
        self.asked.append(job)
        if job["kind"] == "copies":
            return {"copies": [{"working_set_bytes": size, "gb_per_s": 5.0} for size in job["sizes"]]}
        if job["kind"] == "layers":
            return {"nodes": []}
        return {"measured": [{**one, "gmac_per_s": self.speed} for one in job["probes"]]}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    jobs = Jobs()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(roofline, "run_job", jobs)
    monkeypatch.setattr(roofline_measure, "run_job", jobs)
    monkeypatch.setattr(roofline, "RooflineRequest", functools.partial(RooflineRequest, measure=TINY))
    return jobs


def bench_file(path: Path, engine: Path, median: float) -> Path:
    row = {"engine": str(engine), "backend": "onnxruntime", "batch": 1, "latency_ms": {"median": median}}
    path.write_text(json.dumps({"results": [row]}))
    return path


def test_the_command_with_the_times_of_a_bench(jobs: Jobs, engines: list[Path], tmp_path: Path, rir: Runner) -> None:
    bench = bench_file(tmp_path / "bench.json", engines[0], 0.05)
    ran = rir("roofline", engines[0], "--from", bench, "--threads", 1, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.json["engines"]
    assert (row["median_ms"], row["fastest_ms"]) == (0.05, None)
    assert row["ceiling_ms"] == pytest.approx(row["macs"] / 2.0 / 1e6)
    assert not row["warnings"]
    table = rir("roofline", engines[0], "--from", bench, "--threads", 1)
    assert table.code == 0
    assert "of the ceiling" in table.out
    assert "chain.onnx" in table.out
    own = {tuple(one["shape"]["size"]) for job in jobs.asked if job["kind"] == "shapes" for one in job["probes"]}
    assert own == {(8, 8)}


@pytest.mark.parametrize(
    ("machine", "row", "words"),
    [({"cpu": "Another 9"}, {}, "another machine (Another 9, here"), ({}, {"threads": 77}, "on 77 threads")],
)
def test_times_of_another_machine_or_other_threads_are_refused(
    machine: dict[str, str],
    row: dict[str, int],
    words: str,
    jobs: Jobs,
    engines: list[Path],
    tmp_path: Path,
    rir: Runner,
) -> None:
    bench = bench_file(tmp_path / "bench.json", engines[0], 0.05)
    data = json.loads(bench.read_text())
    data["machine"] = machine
    data["results"][0] |= row
    bench.write_text(json.dumps(data))
    ran = rir("roofline", engines[0], "--from", bench, "--threads", 1)
    assert ran.code == InputError.exit_code
    assert words in ran.err
    assert jobs.asked == []  # before anything is measured


def test_an_engine_that_is_faster_than_its_ceiling_is_flagged(
    jobs: Jobs, engines: list[Path], tmp_path: Path, rir: Runner
) -> None:
    bench = bench_file(tmp_path / "bench.json", engines[0], 0.001)
    ran = rir("roofline", engines[0], "--from", bench, "--json")
    assert ran.json["engines"][0]["share"] > 1
    assert "faster than its ceiling" in ran.json["engines"][0]["warnings"][0]


def timed_as(record: LatencyRecord | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the bench: one row, of ``record``."""

    def bench(request: Any, _progress: object) -> Any:
        row = BenchRow(str(request.engines[0]), "onnxruntime", "fp32", 1, record, "it died")
        return SimpleNamespace(rows=[row])

    monkeypatch.setattr(roofline, "bench_files", bench)


def test_a_fastest_call_over_the_ceiling_is_flagged_with_its_own_share(
    jobs: Jobs, engines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    least = (8 * 3 * 9 * 64 + 4 * 8 * 64) / 2.0 / 1e6
    timed_as(summarize([samples(least / 1.5, least * 2, least * 2)], 1), monkeypatch)
    (row,) = roofline_files(RooflineRequest(tuple(engines), QUICK, measure=TINY))["engines"]
    assert row["share"] == pytest.approx(0.5, abs=0.01)
    assert row["warnings"] == [
        "it is faster than its ceiling (150%): the machine was slower while that was measured; --no-cache"
    ]


def test_an_engine_that_could_not_be_timed_is_not_bad_input(
    jobs: Jobs, engines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(None, monkeypatch)
    with pytest.raises(BackendError, match="could not be timed: it died"):
        roofline_files(RooflineRequest(tuple(engines), QUICK, measure=TINY))


def test_a_machine_that_is_slower_than_it_was_is_flagged(
    jobs: Jobs, engines: list[Path], tmp_path: Path, rir: Runner
) -> None:
    bench = bench_file(tmp_path / "bench.json", engines[0], 1.0)
    assert rir("roofline", engines[0], "--from", bench, "--json").json["notes"] == []
    jobs.speed = 1.0
    assert "50% of its ceiling" in rir("roofline", engines[0], "--from", bench, "--json").json["notes"][0]


def test_a_damaged_cache_is_measured_anew(jobs: Jobs, engines: list[Path], tmp_path: Path, rir: Runner) -> None:
    bench = bench_file(tmp_path / "bench.json", engines[0], 1.0)
    rir("roofline", engines[0], "--from", bench, "--json")
    (cache,) = (tmp_path / "cache" / "rir-deploy").iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(whole[:100])
    ran = rir("roofline", engines[0], "--from", bench, "--json")
    assert "measured anew" in ran.json["notes"][0]
    assert ran.json["cached"] == 0
    assert cache.read_bytes() == whole
    jobs.asked.clear()
    assert rir("roofline", engines[0], "--from", bench, "--no-cache", "--json").json["cached"] == 0
    assert {job["kind"] for job in jobs.asked} == {"shapes", "copies", "layers"}


def test_what_cannot_be_held_against_a_cpu(engines: list[Path], tmp_path: Path, jobs: Jobs, rir: Runner) -> None:
    with pytest.raises(UsageError, match="name something"):
        RooflineRequest(())
    bench = bench_file(tmp_path / "bench.json", tmp_path / "other.onnx", 1.0)
    ran = rir("roofline", engines[0], "--from", bench)
    assert ran.code == InputError.exit_code
    assert "has no time of" in ran.err
    ran = rir("roofline", engines[0], "--from", "nope.json")
    assert ran.code == InputError.exit_code
    assert "there is no bench record 'nope.json'; write one with: bench ... --json > nope.json" in ran.err
    flat = Writer(dtype=np.float32)
    ir.save(flat.model(flat.relu(flat.input(3))), tmp_path / "flat.onnx")
    assert "no layer" in rir("roofline", tmp_path / "flat.onnx").err
    assert rir("roofline", engines[0], "--batch", "x").code == 2
    assert rir("roofline", tmp_path / "none.onnx").code == 2
