"""TensorRT-RTX engines of the full-size RiR for every GPU that RTX knows: sizes, build times, what the builder made.

    python benchmarks/rtx_builds.py -o benchmarks/results/rtx_builds.json
    python benchmarks/rtx_builds.py --table benchmarks/results/rtx_builds.json     # the table in docs/reliability.md

Needs TensorRT-RTX and no GPU; nothing is run. Weights are random (no size depends on them) and so are the calibration
images. Times are medians of the builder's part, in one process: of the clock, and of the CPU, which a busy machine
changes less. An engine that build-engine refuses, because it would not compute in the precision it was asked for, is
built all the same and marked.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from rir_deploy.bench.machine import load_average, read_machine
from rir_deploy.engines.base import BuildOptions
from rir_deploy.engines.tensorrt_rtx import BACKEND
from rir_deploy.engines.tensorrt_targets import known_targets
from rir_deploy.errors import BackendError
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.export import ExportRequest, export_model
from rir_deploy.pipeline.lower import PRECISIONS, PrecisionRequest, lower_precision
from rir_deploy.pipeline.realized import check_realized
from rir_deploy.quantize import QuantizeOptions
from rir_deploy.recipe import load_recipe


def make_graphs(folder: Path) -> dict[tuple[str, str], ir.Model]:
    """The full-size RiR, as traced and folded, in every precision."""
    torch.manual_seed(0)
    recipe, checkpoint, images = load_recipe("cifar10"), folder / "rir.safetensors", folder / "noise.npz"
    save_checkpoint(checkpoint, RiR(preset("rir-18-wide")), record=CheckpointRecord(recipe=recipe.to_dict()))
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    np.savez(images, images=noise)
    graphs = {}
    for form in ("traced", "folded"):
        for precision in PRECISIONS:
            model = export_model(ExportRequest(checkpoint, fold=form == "folded")).model
            calibration = CalibrationRequest(data=str(images), samples=32)
            wanted = PrecisionRequest(
                precision, QuantizeOptions("tensorrt"), calibration if precision == "int8" else CalibrationRequest()
            )
            graphs[form, precision] = lower_precision(model, recipe, wanted).model
    return graphs


def build(model: ir.Model, precision: str, targets: tuple[str, ...], turns: int) -> dict[str, Any]:
    seconds, cpu_seconds, sizes = [], [], set()
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            started, busy = time.perf_counter(), time.process_time()
            built = BACKEND.build(model, Path(folder), BuildOptions(targets=targets))
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - busy)
            sizes.add((Path(folder) / built.file).stat().st_size)
    try:
        check_realized(precision, built)
        refusal = None
    except BackendError as error:
        refusal = str(error)
    return {
        "targets": list(targets),
        "size_bytes": max(sizes),
        "same_size_every_time": len(sizes) == 1,
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "realized": {key: built.realized[key] for key in ("layers", "conv", "leaves_int8", "reformats", "casts")},
        "refused": refusal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--output", type=Path, help="JSON file to write")
    what.add_argument("--table", type=Path, help="JSON file to print as a table in Markdown")
    parser.add_argument("--turns", type=int, default=5, help="builds of each engine")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(to_table(json.loads(arguments.table.read_text(encoding="utf-8"))))
    else:
        measure(arguments.output, arguments.turns)


def measure(output: Path, turns: int) -> None:
    import tensorrt_rtx  # the table is read where it is not installed, too

    load = load_average()
    known = known_targets(tensorrt_rtx)
    choices = [*((one,) for one in known), tuple(one for one in known if one != "sm75"), known]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (form, precision), model in make_graphs(Path(folder)).items():
            for targets in choices:
                row = {"graph": form, "precision": precision, **build(model, precision, targets, turns)}
                rows.append(row)
                print(
                    f"{form:7s} {precision} {','.join(targets):36s} {row['size_bytes'] / 1e6:6.1f} MB "
                    f"{row['seconds']:6.2f} s {row['realized']['conv']}{' refused' if row['refused'] else ''}",
                    flush=True,
                )
    result = {
        "machine": read_machine().to_dict(),
        "tensorrt_rtx": tensorrt_rtx.__version__,
        "platform": platform.platform(),
        "turns": turns,
        "load_before": load,
        "rows": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def to_table(result: dict[str, Any]) -> str:
    """One line a graph and precision: engines for Turing, for any one later GPU, for all later ones, and for all."""
    columns = (
        "graph",
        "precision",
        "for sm75",
        "for one later GPU",
        "for all later",
        "for all",
        "build, CPU",
        "computed in",
    )
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for graph, precision in dict.fromkeys((row["graph"], row["precision"]) for row in result["rows"]):
        rows = [row for row in result["rows"] if (row["graph"], row["precision"]) == (graph, precision)]
        groups = [
            [row for row in rows if row["targets"] == ["sm75"]],
            [row for row in rows if len(row["targets"]) == 1 and row["targets"] != ["sm75"]],
            [row for row in rows if len(row["targets"]) > 1 and "sm75" not in row["targets"]],
            [row for row in rows if len(row["targets"]) > 1 and "sm75" in row["targets"]],
        ]
        kept = [row for row in rows if row["refused"] is None]
        seconds = [row["cpu_seconds"] for row in kept]
        kinds = kept[0]["realized"]["conv"]
        assert all(row["realized"]["conv"] == kinds for row in kept)
        computed = ", ".join(f"{count} convolutions in {kind}" for kind, count in kinds.items())
        cells = [graph, precision, *map(_sizes, groups), f"{min(seconds):.2f} to {max(seconds):.2f} s", computed]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sizes(rows: list[dict[str, Any]]) -> str:
    sizes = sorted({f"{row['size_bytes'] / 1e6:.1f}" for row in rows})
    text = f"{sizes[0]} MB" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} MB"
    return text if rows[0]["refused"] is None else f"refused ({text}, in float)"


if __name__ == "__main__":
    main()
