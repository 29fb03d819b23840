"""A RiR of more than 2 GB, with its weights in a file beside it, folded from file to file.

    python benchmarks/fold_large.py -o benchmarks/results/fold_large.json

Four generalized residual blocks of 2 x --width channels in FP32, folded in a process of its own; then both files run
in ONNX Runtime, each in a process of its own, on the same small input. Takes about --width / 1024 squared times 10 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.own_process import load, peak_gb, run_self, write_report
from rir_deploy.bench.machine import read_machine
from rir_deploy.fold import FoldOptions
from rir_deploy.onnx_file import save_onnx
from rir_deploy.pipeline.fold import fold_file
from tests.fold.family import Family, build

BLOCKS = 4


def make(folder: Path, width: int) -> dict[str, Any]:
    """The traced model, built at a width of one and given weights of the real width, in float32."""
    model = build(Family(((1, 1, 1),) * (BLOCKS // 2)), (4, 4))
    rng = np.random.default_rng(0)
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        if value.const_value.dtype == ir.DataType.DOUBLE:
            shape = _wide(value, width)
            array = _values(value, shape, rng)
            value.const_value = ir.tensor(array, name=name)
            value.shape, value.dtype = ir.Shape(shape), ir.DataType.FLOAT
    for value in (*model.graph.inputs, *model.graph.outputs, *(v for node in model.graph for v in node.outputs)):
        value.dtype = ir.DataType.FLOAT
    for value in [node.outputs[0] for node in model.graph if not node.outputs[0].is_graph_output()]:
        value.shape = None
    save_onnx(model, folder / "traced.onnx", force=True)
    return {"bytes": sum(path.stat().st_size for path in folder.glob("traced.onnx*"))}


def _wide(value: ir.Value, width: int) -> list[int]:
    """Streams of one channel become ``width`` wide; the input keeps 3 channels and the head its 4 classes."""
    shape = [int(size) for size in value.shape or []]
    (node, place), *_ = value.uses()
    if node.op_type == "Conv":
        rows, cols = shape[:2]
        return [width if rows == 1 else rows, {1: width, 2: 2 * width}.get(cols, cols), *shape[2:]]
    return [width] if place and shape == [1] else shape


def _values(value: ir.Value, shape: list[int], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if len(shape) == 4:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def fold_one(folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    result = fold_file(folder / "traced.onnx", folder / "folded.onnx", FoldOptions(require=True), force=True)
    return {
        "seconds": time.perf_counter() - start,
        "peak_gb": peak_gb(),
        "convs": {"before": result.before.convs, "after": result.after.convs},
        "weight_bytes": {"before": result.before.weight_bytes, "after": result.after.weight_bytes},
        "macs": {"before": result.before.macs, "after": result.after.macs},
    }


def run(path: Path) -> list[float]:
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 4)).astype(np.float32)
    return [float(number) for number in np.ravel(session.run(None, {"x": x})[0])]


def one_step(step: str, folder: Path, width: int) -> Any:
    if step == "make":
        return make(folder, width)
    return fold_one(folder) if step == "fold" else run(folder / f"{step}.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where the models go (default: a temporary folder)")
    parser.add_argument("--step", choices=["make", "fold", "traced", "folded"], help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(one_step(arguments.step, arguments.folder, arguments.width)))
        return
    before = load()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        given = ("--folder", name, "--width", arguments.width)
        steps = {step: run_self(__file__, "--step", step, *given) for step in ("make", "fold", "traced", "folded")}
    traced, folded = np.array(steps["traced"]), np.array(steps["folded"])
    error = float(np.abs(traced - folded).max() / np.abs(traced).max())
    figures = {"width": arguments.width, **steps["make"], **steps["fold"], "relative_error": error}
    write_report({"machine": read_machine().to_dict(), "load": before, **figures}, arguments.output)


if __name__ == "__main__":
    main()
