"""Latency of the full-size RiR: as traced, folded, and as the plain CNN it folds to; on CPU runtimes and in PyTorch.

    python benchmarks/latency.py -o benchmarks/results/latency.json

Weights are random (speed does not depend on them) and so are the calibration images: these engines answer nothing,
they are timed. Every contender runs in processes of its own, in turns; medians are over all turns. Run it on a quiet
machine.
With onnxslim, onnxsim installed, what they make of the traced graph is timed beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from rir_deploy.bench.machine import read_machine
from rir_deploy.bench.options import BenchOptions
from rir_deploy.engines import get_backend
from rir_deploy.fold import measure_work
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.recipe import load_recipe

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Graph:
    """A form of the network, with what it costs."""

    name: str
    path: Path
    convs: int
    nodes: int
    macs: int
    # Export, fold and the check against PyTorch, where this tool did it.
    seconds: float | None = None


def make_graphs(folder: Path) -> tuple[Path, list[Graph]]:
    """The checkpoint, and the graphs: traced, folded, the plain CNN of the same widths, and what peers make of it."""
    checkpoint = _checkpoint("rir-18-wide", folder)
    cnn = _checkpoint("cnn-18-wide", folder)
    graphs = [
        _export("traced", checkpoint, folder, fold=False),
        _export("folded", checkpoint, folder, fold=True),
        _export("plain cnn", cnn, folder, fold=True),
    ]
    return checkpoint, graphs + _peers(graphs[0].path, folder)


def _checkpoint(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, RiR(preset(name)), record=CheckpointRecord(recipe=load_recipe("cifar10").to_dict()))
    return path


def _export(name: str, checkpoint: Path, folder: Path, *, fold: bool) -> Graph:
    path = folder / f"{name.replace(' ', '-')}.onnx"
    exported = export_file(ExportRequest(checkpoint, fold=fold), path, force=False)
    return _graph(name, path, exported.seconds)


def _graph(name: str, path: Path, seconds: float | None = None) -> Graph:
    work = measure_work(load_onnx(path))
    return Graph(name, path, work.convs, work.nodes, work.macs, seconds)


def _peers(traced: Path, folder: Path) -> list[Graph]:
    """Other tools' optimisers, each in a process of its own: they are free to crash."""
    commands = {
        "onnxscript optimizer": "import onnx, onnxscript.optimizer as o, sys;"
        "onnx.save(o.optimize(onnx.load(sys.argv[1])), sys.argv[2])",
        "onnxslim": "import onnx, onnxslim, sys; onnx.save(onnxslim.slim(sys.argv[1]), sys.argv[2])",
        "onnxsim": "import onnx, onnxsim, sys; onnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])",
    }
    found = []
    for name, code in commands.items():
        if importlib.util.find_spec(name.split()[0]) is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        path = folder / f"{name.replace(' ', '-')}.onnx"
        done = subprocess.run([sys.executable, "-c", code, str(traced), str(path)], capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        # Peers drop the metadata in which the preprocessing is recorded.
        model, original = onnx.load(path), onnx.load(traced, load_external_data=False)
        del model.metadata_props[:]
        model.metadata_props.extend(original.metadata_props)
        onnx.save(model, path)
        found.append(_graph(name, path))
    return found


def _plain(images: str) -> CalibrationRequest:
    """The quickest calibration: how weights are rounded makes no difference to the speed."""
    return CalibrationRequest(
        data=images, samples=64, method="minmax", rounding="nearest", equalize=False, correct_bias=False
    )


def make_engines(graphs: list[Graph], folder: Path) -> dict[str, Path]:
    """Engines by "graph / runtime / precision"; peers' graphs are built in FP32 only."""
    images = folder / "noise.npz"
    random = np.random.default_rng(0)
    np.savez(images, images=random.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    calibration = _plain(str(images))
    engines = {}
    for graph in graphs:
        for runtime in RUNTIMES:
            for precision in PRECISIONS if graph.name in ("traced", "folded", "plain cnn") else ("fp32",):
                name = f"{graph.name} / {runtime} / {precision}"
                path = folder / name.replace(" / ", "_").replace(" ", "-")
                request = BuildRequest(
                    graph.path,
                    runtime,
                    precision,
                    calibration=calibration if precision == "int8" else CalibrationRequest(),
                    fold=False,  # type: ignore[arg-type]
                )
                build_engine(request, path, force=False)
                engines[name] = path
    return engines


def build_rtx(graphs: list[Graph], folder: Path) -> list[dict[str, Any]]:
    """Build times and sizes of TensorRT-RTX engines for sm89; nothing is run."""
    if not get_backend("tensorrt-rtx").availability().can_build:
        print("tensorrt-rtx: not installed, left out", file=sys.stderr)
        return []
    calibration = _plain(str(folder / "noise.npz"))
    rows = []
    for graph in graphs[:2]:
        for precision in ("fp32", "fp16", "int8"):
            request = BuildRequest(
                graph.path,
                "tensorrt-rtx",
                precision,
                calibration=calibration if precision == "int8" else CalibrationRequest(),
                targets=("sm89",),
                fold=False,
            )
            seconds, size = [], 0
            for turn in range(3):
                lowered = folder / f"rtx-{graph.name}-{precision}-{turn}"
                built = build_engine(request, lowered, force=False)
                seconds.append(built.build_seconds)
                size = built.manifest.size_bytes
            rows.append(
                {"graph": graph.name, "precision": precision, "size_bytes": size, "seconds": float(np.median(seconds))}
            )
    return rows


def measure(checkpoint: Path, engines: dict[str, Path], options: BenchOptions) -> dict[str, Any]:
    """Medians in ms by contender and batch."""
    request = BenchRequest((checkpoint, *engines.values()), options, channels_last=True)
    data = bench_files(request).to_dict()
    names = {str(path): name for name, path in engines.items()}
    rows = []
    for row in data["results"]:  # type: ignore[union-attr]
        name = names.get(row["engine"], f"traced / {row['backend']} / fp32")
        rows.append({"contender": name, **{k: row[k] for k in ("batch", "latency_ms", "round_medians_ms", "runs")}})
    return {"rows": rows, "settings": data["settings"], "notes": data["notes"]}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the fold gains: ratios of medians, over 1 where the second is faster."""
    median = {(row["contender"], row["batch"]): row["latency_ms"]["median"] for row in rows}
    found = {}
    for batch in sorted({row["batch"] for row in rows}):
        for runtime in RUNTIMES:
            for precision in PRECISIONS:
                traced, folded, cnn = (
                    median[(f"{graph} / {runtime} / {precision}", batch)] for graph in ("traced", "folded", "plain cnn")
                )
                found[f"traced : folded, {runtime} {precision}, batch {batch}"] = traced / folded
                found[f"folded : plain cnn, {runtime} {precision}, batch {batch}"] = folded / cnn
        eager = median[("traced / pytorch / fp32", batch)]
        best = min(median[(f"folded / {runtime} / int8", batch)] for runtime in RUNTIMES)
        found[f"pytorch eager fp32 : best folded int8, batch {batch}"] = eager / best
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds of timing for each contender")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder for the engines (default: a temporary one)")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        checkpoint, graphs = make_graphs(folder)
        engines = make_engines(graphs, folder)
        rtx = build_rtx(graphs, folder)
        batches = tuple(int(batch) for batch in arguments.batches.split(","))
        options = BenchOptions(duration_s=arguments.duration, rounds=arguments.rounds, batches=batches)
        timing = measure(checkpoint, engines, options)
        result = {
            "machine": read_machine().to_dict(),
            "graphs": [{**asdict(graph), "path": graph.path.name} for graph in graphs],
            "ratios": ratios(timing["rows"]),
            "tensorrt_rtx_sm89": rtx,
            **timing,
        }
        text = json.dumps(result, indent=1).replace(f"{folder}/", "")
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    for row in timing["rows"]:
        latency = row["latency_ms"]
        print(f"{row['contender']:45s} batch {row['batch']:3d}  {latency['median']:9.3f} ms  p90 {latency['p90']:9.3f}")
    for name, ratio in result["ratios"].items():
        print(f"{name:60s} {ratio:.2f}")
    for row in rtx:
        print(
            f"tensorrt-rtx sm89 {row['graph']:8s} {row['precision']}: {row['size_bytes'] / 1e6:.1f} MB, "
            f"{row['seconds']:.2f} s"
        )


if __name__ == "__main__":
    main()
