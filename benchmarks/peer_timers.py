"""Our timing beside other people's: OpenVINO's benchmark_app, and a plain loop around ONNX Runtime.

    python benchmarks/peer_timers.py -o benchmarks/results/peer_timers.json

The full-size RiR with random weights, folded, at batch 1, in FP32 and INT8, in both modes. Each timer has a process of
its own and takes turns with the others, round by round, on the same file with the same threads; what is compared are
the medians of the rounds. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from rir_deploy.bench.conditions import Watch
from rir_deploy.bench.doubts import conditions_doubts, machine_doubts
from rir_deploy.bench.machine import load_average, own_cores, read_machine
from rir_deploy.bench.options import BenchOptions
from rir_deploy.engines.base import GRAPH_NAME
from rir_deploy.engines.manifest import check_engine
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.recipe import load_recipe

# OpenVINO reports to its vendor when it is imported, where it finds the package for that.
BENCHMARK_APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"
)
PLAIN_LOOP = """
import json, sys, threading, time
import numpy as np
import onnxruntime
path, threads, callers, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
image = np.random.default_rng(0).standard_normal(given.shape, dtype=np.float32)
def loop(seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {given.name: image})
        times.append(time.perf_counter() - start)
    return times
def together(seconds):
    found = []
    loops = [threading.Thread(target=lambda: found.extend(loop(seconds))) for _ in range(callers)]
    start = time.perf_counter()
    [one.start() for one in loops]
    [one.join() for one in loops]
    return found, time.perf_counter() - start
together(0.2)
times, elapsed = together(seconds)
print(json.dumps({"median_ms": 1000 * float(np.median(times)), "per_s": len(times) / elapsed}))
"""


@dataclass
class Pair:
    """An engine in one mode, and the same file by a peer's timer: a figure a round from each."""

    engine: Path
    mode: str
    peer: str
    timer: Callable[[Path, str, int, float], float]
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def row(self) -> dict[str, Any]:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        unit = "median ms of a request" if self.mode == "synchronous" else "images a second"
        return {
            "engine": self.engine.name,
            "mode": self.mode,
            "unit": unit,
            "peer": self.peer,
            "ours": ours,
            "theirs": theirs,
            "difference": ours / theirs - 1,
            "rounds": {"ours": self.ours, "theirs": self.theirs},
        }


def make_engines(folder: Path) -> list[Path]:
    torch.manual_seed(0)
    checkpoint, graph, images = folder / "rir.safetensors", folder / "rir.onnx", folder / "noise.npz"
    record = CheckpointRecord(recipe=load_recipe("cifar10").to_dict())
    save_checkpoint(checkpoint, RiR(preset("rir-18-wide")), record=record)
    export_file(ExportRequest(checkpoint), graph, force=False)
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    np.savez(images, images=noise)
    plain = CalibrationRequest(
        data=str(images), samples=64, method="minmax", rounding="nearest", equalize=False, correct_bias=False
    )
    lowered = folder / "int8"
    build_engine(BuildRequest(graph, "onnxruntime", "int8", calibration=plain), lowered, force=False)
    engines = []
    for precision, source in (("fp32", graph), ("int8", lowered / GRAPH_NAME)):
        fixed = _fix_batch(source, folder / f"{precision}.onnx")
        for backend in ("openvino", "onnxruntime"):
            path = folder / f"{backend} {precision}"
            build_engine(BuildRequest(fixed, backend), path, force=False)
            engines.append(path)
    return engines


def _fix_batch(source: Path, target: Path) -> Path:
    """One batch size: benchmark_app copies its input at every request where the model leaves it open."""
    model = load_onnx(source)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([1, *list(value.shape or ())[1:]])
    ir.save(model, target)
    return target


def benchmark_app(engine: Path, mode: str, threads: int, seconds: float) -> float:
    """The median in ms, or images a second, as the tool itself prints them.

    It takes no number of threads beside a hint; with one it uses the cores of its process, which are ``threads``.
    """
    hint = ["-hint", "latency", "-api", "sync"] if mode == "synchronous" else ["-hint", "throughput", "-api", "async"]
    given = ["-m", str(engine / "engine.xml"), "-d", "CPU", "-infer_precision", "f32"]
    text = _run(["-c", BENCHMARK_APP, *given, *hint, "-t", str(max(1, round(seconds)))])
    pattern = r"Median: +([0-9.]+) ms" if mode == "synchronous" else r"Throughput: +([0-9.]+) FPS"
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"benchmark_app did not say what it measured:\n{text}")
    return float(found.group(1))


def plain_loop(engine: Path, mode: str, threads: int, seconds: float) -> float:
    callers = 1 if mode == "synchronous" else threads
    file = engine / check_engine(engine).engine.name
    answer = json.loads(_run(["-c", PLAIN_LOOP, str(file), str(threads - callers + 1), str(callers), str(seconds)]))
    return float(answer["median_ms"] if mode == "synchronous" else answer["per_s"])


def _run(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[1][:60]}...: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def ours(engine: Path, mode: str, threads: int, seconds: float) -> float:
    """One round of bench: the figure that the peer prints as well."""
    options = BenchOptions(duration_s=seconds, rounds=1, threads=threads, modes=(mode,))
    record = bench_files(BenchRequest((engine,), options)).rows[0].record
    assert record is not None
    return record.median_ms if mode == "synchronous" else record.throughput_per_s


def compare(engines: list[Path], threads: int, seconds: float, rounds: int) -> list[Pair]:
    pairs = []
    for engine in engines:
        timer, peer = (benchmark_app, "benchmark_app") if "openvino" in engine.name else (plain_loop, "plain loop")
        pairs += [Pair(engine, mode, peer, timer) for mode in ("synchronous", "pipelined")]
    for turn in range(rounds):
        for pair in pairs:
            sides = [(pair.ours, ours), (pair.theirs, pair.timer)]
            # Who begins changes with the round, so that a machine that warms up favours nobody.
            for figures, timer in sides if turn % 2 == 0 else reversed(sides):
                figures.append(timer(pair.engine, pair.mode, threads, seconds))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each round of each timer")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    machine = read_machine()
    with tempfile.TemporaryDirectory() as folder:
        engines = make_engines(Path(folder))
        notes, load = machine_doubts(machine, machine.cores), load_average()
        with Watch(own_cores()) as watch:
            pairs = compare(engines, machine.cores, arguments.seconds, arguments.rounds)
        notes += conditions_doubts(watch.conditions, machine.cores, load)
    rows = [pair.row for pair in pairs]
    settings = {"threads": machine.cores, "seconds": arguments.seconds, "rounds": arguments.rounds, "batch": 1}
    result = {"machine": machine.to_dict(), "settings": settings, "rows": rows, "notes": notes}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row['engine']:18s} {row['mode']:12s} ours {row['ours']:9.3f}  {row['peer']} {row['theirs']:9.3f} "
            f"{row['unit']:24s} {row['difference']:+.1%}"
        )
    for note in notes:
        print(f"warning: {note}")


if __name__ == "__main__":
    main()
