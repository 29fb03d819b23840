"""How far the full-size RiR is from what this machine can do: FP32 and INT8, ONNX Runtime and OpenVINO.

    python benchmarks/roofline.py -o benchmarks/results/roofline.json

Weights are random (speed does not depend on them) and so are the calibration images, unless --checkpoint names a
trained network and --data its calibration images. Ceilings and engines are measured several times over, one after the
other. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rir_deploy.bench.options import BenchOptions
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.pipeline.lower import Precision
from rir_deploy.pipeline.roofline import RooflineRequest, roofline_files
from rir_deploy.pipeline.roofline_measure import MeasureOptions
from rir_deploy.recipe import load_recipe

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def quick_calibration(data: str) -> CalibrationRequest:
    """How weights are rounded makes no difference to the speed."""
    return CalibrationRequest(
        data=data, samples=64, method="minmax", rounding="nearest", equalize=False, correct_bias=False
    )


def make_engines(checkpoint: Path | None, data: str | None, folder: Path) -> list[Path]:
    """The folded network in every precision for every runtime; what a kept folder holds already is taken from it."""
    recipe = load_recipe("cifar10")
    if checkpoint is None:
        checkpoint = folder / "rir-18-wide.safetensors"
        torch.manual_seed(0)
        if not checkpoint.exists():
            save_checkpoint(checkpoint, RiR(preset("rir-18-wide")), record=CheckpointRecord(recipe=recipe.to_dict()))
    if data is None:
        data = str(folder / "noise.npz")
        pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
        np.savez(data, images=pixels)
    graph = folder / "folded.onnx"
    if not graph.exists():
        export_file(ExportRequest(checkpoint, "cifar10"), graph, force=False)
    quick = quick_calibration(data)
    engines = []
    for precision in PRECISIONS:
        for runtime in RUNTIMES:
            path = folder / f"{runtime}-{precision}"
            calibration = quick if precision == "int8" else CalibrationRequest()
            if not path.exists():
                build_engine(BuildRequest(graph, runtime, precision, calibration=calibration), path, force=False)
            engines.append(path)
    return engines


def repeat(engines: list[Path], options: BenchOptions, repeats: int) -> dict[str, Any]:
    """The roofline several times over, each on ceilings of its own: a shared machine is another one after ten minutes.

    Of each engine and batch size the repeat with the median share is kept, and the shares of all in ``shares``.
    """
    request = RooflineRequest(tuple(engines), options, cache=False, measure=MeasureOptions(rounds=2))
    records = [roofline_files(request) for _ in range(repeats)]
    rows = []
    for same in zip(*(record["engines"] for record in records), strict=True):
        middle = sorted(same, key=lambda row: row["share"])[(len(same) - 1) // 2]
        rows.append({**middle, "shares": [row["share"] for row in same]})
    notes = list(dict.fromkeys(note for record in records for note in record["notes"]))
    best = [max(one["gmac_per_s"] for one in record["ceilings"] if one["precision"] == "int8") for record in records]
    return {**records[0], "engines": rows, "notes": notes, "int8_ceilings_gmac_per_s": best}


def summary(record: dict[str, Any]) -> list[str]:
    """A line an engine and batch size."""
    return [
        f"{row['backend']:12s} {row['precision']} batch {row['batch']:3d}: median {row['median_ms']:8.3f} ms, "
        f"least {row['ceiling_ms']:8.3f} ms, {row['share']:.1%} of the ceiling "
        f"({min(row['shares']):.1%} to {max(row['shares']):.1%}); fastest call {row['fastest_share']:.1%}"
        for row in record["engines"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--checkpoint", type=Path, help="a trained network in the place of the full-size one")
    parser.add_argument("--data", help="its calibration images (default: noise)")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--duration", type=float, default=2.0, help="seconds of timing for each engine")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="how often all of it is measured")
    parser.add_argument("--keep", type=Path, help="folder for the engines (default: a temporary one)")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        engines = make_engines(arguments.checkpoint, arguments.data, folder)
        batches = tuple(int(batch) for batch in arguments.batches.split(","))
        options = BenchOptions(duration_s=arguments.duration, rounds=arguments.rounds, batches=batches)
        record = repeat(engines, options, arguments.repeats)
        network = "rir-18-wide, random weights" if arguments.checkpoint is None else arguments.checkpoint.name
        text = json.dumps({"network": network, **record}, indent=1).replace(f"{folder}/", "")
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    for line in (*summary(record), *record["notes"]):
        print(line)


if __name__ == "__main__":
    main()
