"""bench: contenders, rounds, the worker and the command line. No test looks at how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.bench.board import Board, DeviceClock
from rir_deploy.bench.conditions import Counters, Look, Watch, conditions_of
from rir_deploy.bench.cpu import CpuClocks
from rir_deploy.bench.gpu import GpuState
from rir_deploy.bench.machine import Machine
from rir_deploy.bench.options import MODE_CHOICES, BenchOptions
from rir_deploy.engines.base import TensorSpec
from rir_deploy.errors import BackendError, InputError, UsageError
from rir_deploy.pipeline import bench, bench_trial
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.bench_images import random_batch
from rir_deploy.pipeline.bench_open import open_contender
from tests.bench.records import document
from tests.conftest import Runner
from tests.fold.graphs import Writer

QUICK = ("--warmup", 0, "--duration", 0, "--iterations", 3, "--rounds", 1, "--threads", 1)


def write_net(path: Path, batch: int | str = "batch", size: tuple[int | str, int | str] = (8, 8)) -> Path:
    """A small FP32 network for 3-channel images."""
    net = Writer(dtype=np.float32)
    model = net.model(net.relu(net.bn(net.conv(net.input(3, size), 4))))
    model.graph.inputs[0].shape = ir.Shape([batch, 3, *size])
    ir.save(model, path)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    return write_net(tmp_path_factory.mktemp("net") / "net.onnx")


class FakeWorkers:
    """In place of the processes: every call takes ``ms`` of the file named, and some files cannot be run.

    When pipelined, one of two requests in flight ends every ``ms``. The first process of a file takes longer to load.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ms: dict[str, float]) -> None:
        self.ms, self.jobs, self.fail_from = ms, [], {}  # type: ignore[var-annotated]
        self.gpu_ms: dict[str, list[float]] = {}
        self.preemptions_per_s = 0.0
        monkeypatch.setattr(bench_trial, "run_job", self)

    def __call__(self, _module: str, job: dict[str, Any], _name: str) -> dict[str, Any]:
        name = Path(job["path"]).name
        same = [old for old in self.jobs if (Path(old["path"]).name, old["batch"]) == (name, job["batch"])]
        turn = sum(old["mode"] == job["mode"] for old in same)
        self.jobs.append(job)
        if turn >= self.fail_from.get(name, 99):
            raise BackendError(f"{name}: no GPU")
        streams = 2 if job["mode"] == "pipelined" else 1
        calls, ns = job["options"]["iterations"], round(1e6 * self.ms[name])
        return {
            "times_ns": [ns * streams] * calls,
            "first_ns": round(5e6) + turn,
            "warmup_runs": 1,
            "elapsed_ns": ns * calls,
            "import_ms": 30.0,
            "load_ms": 70.0 if turn == 0 else 7.0 + turn,
            "held_mb": 40.0,
            "peak_mb": 100.0 + turn,
            "preemptions_per_s": self.preemptions_per_s,
            "gpu_ms": self.gpu_ms,
            "streams": streams,
            "runs_on": "fake",
            "input": {"name": "x", "dtype": "float32", "shape": [1]},
        }


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    return FakeWorkers(monkeypatch, {"a.onnx": 2.0, "b.onnx": 1.0})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_net(tmp_path / "a.onnx"), write_net(tmp_path / "b.onnx")


def test_contenders_take_turns_in_every_round(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    options = BenchOptions(iterations=4, duration_s=3, rounds=2, batches=(1, 8), threads=3)
    seen = []
    benched = bench_files(BenchRequest(pair, options), lambda label, done, total: seen.append((done, total)))
    one_round = [("a.onnx", 1), ("b.onnx", 1), ("a.onnx", 8), ("b.onnx", 8)]
    assert [(Path(job["path"]).name, job["batch"]) for job in workers.jobs] == 2 * one_round
    assert {(job["options"]["iterations"], job["options"]["duration_s"], job["threads"]) for job in workers.jobs} == {
        (2, 1.5, 3)
    }
    assert seen == [(done, 8) for done in range(9)]
    assert [(Path(row.engine).name, row.batch) for row in benched.rows] == one_round
    assert {row.record.runs for row in benched.rows if row.record} == {4}
    assert benched.times_to_dict()["results"][1]["rounds_ns"] == ((10**6, 10**6), (10**6, 10**6))  # type: ignore[index]


def test_what_cannot_run_is_a_row_with_the_reason(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    workers.fail_from = {"a.onnx": 0}
    results: Any = bench_files(BenchRequest(pair, BenchOptions(rounds=3))).to_dict()["results"]
    assert [row["status"] for row in results] == ["not run", "ok"]
    assert results[0]["reason"] == "a.onnx: no GPU"
    assert results[1]["speedup"] == 1
    assert len(workers.jobs) == 1 + 3  # what is not there is asked for once


def test_what_dies_in_a_later_round_keeps_no_figures(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    workers.fail_from = {"b.onnx": 1}
    benched = bench_files(BenchRequest(pair, BenchOptions(rounds=3)))
    assert [row.status for row in benched.rows] == ["ok", "not run"]
    assert benched.times_ns[1] == ()


def test_nothing_that_runs_is_an_error(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    workers.fail_from = {"a.onnx": 0, "b.onnx": 0}
    with pytest.raises(BackendError, match=r"a\.onnx: no GPU; b\.onnx: no GPU"):
        bench_files(BenchRequest(pair))


def test_a_batch_size_that_one_does_not_take(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    fixed = write_net(pair[0], batch=4)
    benched = bench_files(BenchRequest((fixed, pair[1]), BenchOptions(batches=(8,))))
    assert benched.rows[0].reason.startswith(f"'{fixed}' takes batch 4, not 8")
    with pytest.raises(UsageError, match="takes batch 4, not 8"):
        bench_files(BenchRequest((fixed,), BenchOptions(batches=(8,))))


def test_both_modes_are_rows_of_their_own(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    options = BenchOptions(rounds=1, batches=(1, 8), modes=("synchronous", "pipelined"), streams=2)
    results: Any = bench_files(BenchRequest(pair, options)).to_dict()["results"]
    assert [(job["mode"], job["batch"]) for job in workers.jobs] == [
        (mode, batch) for mode in ("synchronous", "pipelined") for batch in (1, 8) for _ in pair
    ]
    assert {job["streams"] for job in workers.jobs} == {2}
    assert [(row["mode"], row.get("streams")) for row in results] == [("synchronous", None)] * 4 + [
        ("pipelined", 2)
    ] * 4
    assert [row["latency_ms"]["median"] for row in results] == [2, 1, 2, 1, 4, 2, 4, 2]
    assert [row["throughput_per_s"] for row in results] == pytest.approx([500, 1000, 4000, 8000] * 2)
    assert [row["speedup"] for row in results] == pytest.approx([1, 2] * 4)


def test_what_an_engine_costs_before_it_answers(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    """Medians over the fresh processes, so that a cold disk at the first of them does not count; the largest memory."""
    row: Any = bench_files(BenchRequest(pair[:1], BenchOptions(rounds=3))).to_dict()["results"][0]  # type: ignore[index]
    assert (row["import_ms"], row["load_ms"]) == (30, 9)
    assert row["first_inference_ms"] == pytest.approx(5, abs=1e-3)
    assert (row["peak_memory_mb"], row["engine_memory_mb"]) == (102, 62)


def test_what_the_process_saw_is_a_warning_of_the_row(workers: FakeWorkers, pair: tuple[Path, Path]) -> None:
    workers.preemptions_per_s = 400.0
    workers.gpu_ms = {"compute": [1.0, 2.0, 3.0], "enqueue": [1.9, 1.9, 1.9]}
    row: Any = bench_files(BenchRequest(pair[:1], BenchOptions(rounds=2, iterations=400))).to_dict()["results"][0]  # type: ignore[index]
    aside, bound = row["warnings"]
    assert "put aside 400 times a second" in aside
    assert "launching takes 1.900 ms and computing 2.000 ms; replay a CUDA graph with --cuda-graph" in bound
    options = BenchOptions(rounds=2, iterations=400, modes=MODE_CHOICES["throughput"])
    row = bench_files(BenchRequest(pair[:1], options)).to_dict()["results"][0]  # type: ignore[index]
    assert not any("put aside" in warning for warning in row["warnings"])  # by its own threads
    assert row["gpu_ms"]["compute"] == {"min": 1, "mean": 2, "median": 2, "p90": 3, "p95": 3, "p99": 3, "max": 3}


@pytest.fixture
def hot_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with much to say, on which others ran as well."""
    gpu = GpuState("L4", "sm89", "550.54", clock_mhz=2040, temperature_c=81, power_w=70.5)
    machine = Machine(
        "Linux 6.1",
        "3.11",
        "Imaginary 9000",
        6,
        16.0,
        ("AVX2",),
        (gpu.label,),
        gpu.driver,
        CpuClocks("powersave", 800, 3600, 1200, 3400, turbo=True, quota_cores=1.5),
        (gpu,),
        Board("MAXN", (DeviceClock("gpu", 918, 306, 918),), {"cpu": 60.0}, {"VDD_IN": 9.0}),
    )
    monkeypatch.setattr(bench, "read_machine", lambda: machine)
    before = Counters(0, 0, 0, 0, 0, 0, 0, None)
    after = Counters(10, 9, 1, 20, 4, 0, 0, None)
    monkeypatch.setattr(Watch, "conditions", conditions_of(before, after, [Look(None, {}, {}, ())]))


def test_the_machine_its_state_and_what_was_wrong_with_it(
    workers: FakeWorkers, pair: tuple[Path, Path], hot_machine: None, rir: Runner
) -> None:
    ran = rir("bench", *pair)
    assert ran.code == 0, ran.err
    assert (
        "clocks: CPU 3400 MHz, up to 3600 MHz, governor powersave, turbo on, quota 1.5 cores, power mode MAXN, "
        "GPU 918 MHz, GPU 2040 MHz, 81 °C, 70 W"
    ) in ran.out
    for warning in (
        "the CPU's clocks follow the load (governor powersave); for the timing run: sudo cpupower",
        "the container may use 1.5 cores and 6 threads run",
        "the GPU's clock is free to move from 306 to 918 MHz; for the timing run: sudo jetson_clocks",
        "the hypervisor gave 5% of the CPU time to other machines; time on a host of your own",
        "other processes took 25% of the CPU time; stop them and time again",
    ):
        assert f"warning: {warning}" in ran.out
    data = rir("bench", *pair, "--json").json
    assert data["machine"]["clocks"]["governor"] == "powersave"
    assert data["machine"]["gpu_states"][0]["temperature_c"] == 81
    assert data["machine"]["board"]["power_w"] == {"VDD_IN": 9}
    assert (data["conditions"]["steal"], data["conditions"]["others"]) == (0.05, 0.25)
    assert sum("the hypervisor" in note for note in data["notes"]) == 1


def test_a_baseline_is_looked_at_before_anything_is_timed(
    workers: FakeWorkers, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(document([("c.onnx", "onnxruntime", 1, 3)])))
    with pytest.raises(InputError, match=r"c\.onnx"):
        bench_files(BenchRequest(pair, baseline=old))
    assert workers.jobs == []


def test_the_gate(workers: FakeWorkers, pair: tuple[Path, Path], tmp_path: Path, rir: Runner) -> None:
    old = tmp_path / "old.json"
    medians = [("elsewhere/a.onnx", "onnxruntime", 1, 1.95), ("elsewhere/b.onnx", "onnxruntime", 1, 0.9)]
    old.write_text(json.dumps(document(medians, cpu="another CPU")))
    ran = rir("bench", *pair, "--baseline", old, "--json")
    assert ran.code == 3
    assert "b.onnx at batch 1 takes 1.000 ms, 11.1% more than 0.900 ms" in ran.err
    assert "a.onnx" not in ran.err
    assert [Path(one["engine"]).name for one in ran.json["baseline"]["regressions"]] == ["b.onnx"]
    assert not ran.json["baseline"]["passed"]
    assert any("another CPU" in note for note in ran.json["notes"])
    passed = rir("bench", *pair, "--baseline", old, "--max-regression", "12%")
    assert passed.code == 0
    assert "baseline passed: 2 compared, 0 slower" in passed.out


def test_json_of_one_run_is_the_baseline_of_the_next(
    workers: FakeWorkers, pair: tuple[Path, Path], tmp_path: Path, rir: Runner
) -> None:
    old = tmp_path / "old.json"
    old.write_text(rir("bench", *pair, "--batch", "1,8", "--json").out)
    again = rir("bench", *pair, "--batch", "1,8", "--baseline", old, "--max-regression", "0", "--json")
    assert again.code == 0
    assert [one["change"] for one in again.json["baseline"]["comparisons"]] == [0, 0, 0, 0]
    assert not any("baseline" in note for note in again.json["notes"])
    other = rir("bench", *pair, "--batch", "1,8", "--threads", 77, "--baseline", old)
    assert other.code == 5
    assert "and this is on 77 threads: the times cannot be compared" in other.err


def test_json_on_a_real_network(net: Path, rir: Runner, tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    quick = [*QUICK[:-4], "--rounds", 2, "--threads", 1]
    ran = rir("bench", net, "--batch", "1,2", *quick, "--percentile", 99.9, "--export-times", times, "--json")
    assert ran.code == 0, ran.err
    results = ran.json["results"]
    assert [(row["engine"], row["backend"], row["precision"], row["batch"]) for row in results] == [
        (str(net), "onnxruntime", "fp32", 1),
        (str(net), "onnxruntime", "fp32", 2),
    ]
    assert results[1]["input"]["shape"] == [2, 3, 8, 8]
    assert results[0]["runs_on"].endswith("CPUExecutionProvider")
    assert {row["mode"] for row in results} == {"synchronous"}
    for row in results:
        assert row["load_ms"] > 0
        assert row["first_inference_ms"] > 0
        assert row["peak_memory_mb"] > row["engine_memory_mb"] >= 0
    raw = json.loads(times.read_text())["results"]
    for row, exported in zip(results, raw, strict=True):
        everything = np.concatenate([np.array(part) for part in exported["rounds_ns"]]) / 1e6
        assert len(everything) == row["runs"] == 4
        assert row["latency_ms"]["median"] == pytest.approx(np.median(everything))
        assert row["latency_ms"]["p99.9"] == pytest.approx(everything.max())
        assert row["throughput_per_s"] == pytest.approx(1000 * row["batch"] / everything.mean())
    assert ran.json["settings"]["threads"] == 1
    assert ran.json["machine"]["cores"] >= 1
    assert set(ran.json["machine"]) >= {"clocks", "gpu_states", "board"}
    assert ran.json["conditions"]["seconds"] > 0


def test_throughput_of_a_real_network(net: Path, rir: Runner, tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    quick = ["--warmup", 0, "--duration", 0, "--iterations", 20, "--rounds", 2, "--threads", 2]
    ran = rir("bench", net, "--mode", "both", "--streams", 3, *quick, "--export-times", times, "--json")
    assert ran.code == 0, ran.err
    synchronous, pipelined = ran.json["results"]
    assert (synchronous["mode"], pipelined["mode"], pipelined["streams"]) == ("synchronous", "pipelined", 3)
    assert pipelined["runs"] == 20
    assert pipelined["throughput_per_s"] == pytest.approx(np.mean(pipelined["round_throughputs_per_s"]), rel=0.5)
    raw = json.loads(times.read_text())["results"]
    assert [one["mode"] for one in raw] == ["synchronous", "pipelined"]
    assert [len(part) for part in raw[1]["rounds_ns"]] == [10, 10]


def test_table_on_a_real_network(net: Path, rir: Runner) -> None:
    ran = rir("bench", net, *QUICK, "--mode", "both")
    assert ran.code == 0, ran.err
    first, second = (line for line in ran.out.splitlines() if "median ms" in line)
    for column in ("engine", "backend", "precision", "batch", "p90", "p95", "p99", "images/s", "speed"):
        assert column in first
        assert column in second
    assert "streams" in second
    assert "streams" not in first
    assert "latency: one synchronous request after another" in ran.out
    assert "throughput: several requests in flight" in ran.out
    assert any("load ms" in line and "first request ms" in line and "peak MB" in line for line in ran.out.splitlines())
    assert "machine: " in ran.out
    assert "settings: 1 round, 0 s and 3 calls" in ran.out
    assert "net.onnx runs on onnxruntime" in ran.out


def test_a_checkpoint_runs_in_pytorch_in_both_layouts(tmp_path: Path, rir: Runner) -> None:
    torch = pytest.importorskip("torch")
    from rir_deploy.models import preset
    from rir_deploy.models.checkpoint import save_checkpoint
    from rir_deploy.models.devices import own_threads
    from rir_deploy.models.rir import RiR

    path = tmp_path / "model.safetensors"
    save_checkpoint(path, RiR(preset("rir-digits", in_channels=1, image_size=(8, 8))))
    ran = rir("bench", path, "--channels-last", *QUICK, "--json")
    assert ran.code == 0, ran.err
    first, second = ran.json["results"]
    assert (first["backend"], second["backend"]) == ("pytorch", "pytorch-channels-last")
    assert first["runs_on"].endswith("cpu eager")
    assert second["runs_on"].endswith("cpu eager channels-last")
    assert first["input"]["shape"] == [1, 1, 8, 8]
    job = {"path": str(path), "kind": "checkpoint", "batch": 1, "threads": 6, "mode": "pipelined"}
    for streams, taken, share in ((3, 3, 2), (None, 6, 1), (8, 8, 1)):
        with own_threads(0), open_contender({**job, "streams": streams}) as opened:
            assert (opened.streams, torch.get_num_threads()) == (taken, share)
            opened.run()


def test_an_open_image_size_comes_from_the_recipe(tmp_path: Path, rir: Runner) -> None:
    pytest.importorskip("onnxruntime")
    free = write_net(tmp_path / "free.onnx", size=("height", "width"))
    ran = rir("bench", free, *QUICK)
    assert ran.code == 2
    assert "--recipe" in ran.err
    ran = rir("bench", free, *QUICK, "--recipe", "cifar10", "--json")
    assert ran.json["results"][0]["input"]["shape"] == [1, 3, 32, 32]


def test_a_malformed_onnx_and_a_changed_engine_are_refused(tmp_path: Path, rir: Runner, net: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(net.read_bytes()[:100])
    assert rir("bench", net, broken, *QUICK).code == 5
    engine = tmp_path / "engine"
    assert rir("build-engine", net, "-o", engine, "--backend", "onnxruntime").code == 0
    assert rir("bench", engine, *QUICK, "--batch", 64).code == 2  # built for 1 to 32
    with open(engine / "graph.onnx", "ab") as file:
        file.write(b"\0")
    ran = rir("bench", engine, *QUICK)
    assert ran.code == 5
    assert "sha256 differs" in ran.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "ENGINE"),
        (("none.onnx",), "none.onnx"),
        (("NET", "--batch", "1,x"), "1,8,32"),
        (("NET", "--batch", "1,1"), "none twice"),
        (("NET", "--percentile", "100"), "percentile"),
        (("NET", "--rounds", "0"), "rounds"),
        (("NET", "--mode", "fast"), "latency"),
        (("NET", "--streams", "2"), "--mode throughput"),
        (("NET", "--mode", "both", "--streams", "0"), "streams"),
        (("NET", "--max-regression", "5%"), "--baseline"),
        (("NET", "--baseline", "x", "--max-regression", "5"), "5% or 0.05"),
        (("NET", "--baseline", "x", "--max-regression", "lots"), "5% or 0.05"),
        (("NET", "--export-times", "NET"), "would replace the input"),
        (("NET", "--export-times", __file__), "exists already"),
    ],
)
def test_requests_that_make_no_sense(arguments: tuple[str, ...], word: str, net: Path, rir: Runner) -> None:
    ran = rir("bench", *(net if argument == "NET" else argument for argument in arguments))
    assert ran.code == 2
    assert word in ran.err


def test_made_up_images() -> None:
    pixels = random_batch(TensorSpec("x", "uint8", (None, 8, 6, 3)), 2, None)
    assert (pixels.shape, pixels.dtype) == ((2, 8, 6, 3), np.uint8)
    assert pixels.max() > 200
    assert random_batch(TensorSpec("x", "uint8", (None, None, None, 3)), 2, (3, 8, 6)).shape == (2, 8, 6, 3)
    floats = random_batch(TensorSpec("x", "float32", (None, 3, 8, 6)), 2, None)
    assert (floats.shape, floats.dtype) == ((2, 3, 8, 6), np.float32)
    assert abs(float(floats.std()) - 1) < 0.2
    assert np.array_equal(floats, random_batch(TensorSpec("x", "float32", (None, 3, 8, 6)), 2, None))
    assert random_batch(TensorSpec("x", "float16", (4, 3, 8, 6)), 4, (3, 8, 6)).dtype == np.float16
    with pytest.raises(UsageError, match="3x8x6 and the input 'x' takes 3x9x6"):
        random_batch(TensorSpec("x", "float32", (None, 3, 9, 6)), 2, (3, 8, 6))
    with pytest.raises(InputError, match="int64"):
        random_batch(TensorSpec("x", "int64", (None, 3)), 2, None)
