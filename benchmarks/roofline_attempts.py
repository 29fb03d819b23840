"""What brings the INT8 engine nearer to the ceiling: changes of the graph and options of the runtimes, one at a time.

    python benchmarks/roofline_attempts.py --keep FOLDER -o benchmarks/results/roofline_attempts.json

FOLDER is what benchmarks/roofline.py --keep made. Every attempt runs in a process of its own each round, in turns with
the engine as it is; a ratio under 1 is faster. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from roofline import quick_calibration

from rir_deploy.bench.machine import read_machine
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.build import BuildRequest, build_engine

OPENVINO = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
# (runtime, what is changed, graph, options); the first of each runtime is the engine as it is.
ATTEMPTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("openvino", "as it is", "engine", {}),
    ("openvino", "the same again", "engine", {}),
    ("openvino", "average before the head", "averaged", {}),
    ("openvino", "uint8 input", "uint8", {}),
    ("openvino", "both", "averaged-uint8", {}),
    ("openvino", "CPU pinning off", "engine", {"ENABLE_CPU_PINNING": False}),
    ("openvino", "CPU pinning on", "engine", {"ENABLE_CPU_PINNING": True}),
    ("openvino", "throughput hint", "engine", {"PERFORMANCE_HINT": "THROUGHPUT"}),
    ("openvino", "BF16 outside of the integers", "engine", {"INFERENCE_PRECISION_HINT": "bf16"}),
    ("openvino", "static batch", "static", {}),
    ("onnxruntime", "as it is", "engine", {}),
    ("onnxruntime", "the same again", "engine", {}),
    ("onnxruntime", "average before the head", "averaged", {}),
    ("onnxruntime", "uint8 input", "uint8", {}),
    ("onnxruntime", "both", "averaged-uint8", {}),
    ("onnxruntime", "basic graph optimisation", "engine", {"level": "ORT_ENABLE_BASIC"}),
    ("onnxruntime", "extended graph optimisation", "engine", {"level": "ORT_ENABLE_EXTENDED"}),
    ("onnxruntime", "no spinning", "engine", {"session.intra_op.allow_spinning": "0"}),
    ("onnxruntime", "smaller blocks of work", "engine", {"session.dynamic_block_base": "4"}),
    ("onnxruntime", "no arena", "engine", {"arena": False}),
    ("onnxruntime", "static batch", "static", {}),
]


def make_graphs(folder: Path) -> dict[str, Path]:
    """The INT8 graph as it is, and changed."""
    graphs = {"engine": folder / "openvino-int8" / "graph.onnx"}
    averaged = folder / "averaged.onnx"
    save_onnx(average_first(load_onnx(folder / "folded.onnx")), averaged, force=True)
    built = folder / "averaged-int8"
    request = BuildRequest(averaged, "openvino", "int8", calibration=quick_calibration(str(folder / "noise.npz")))
    build_engine(request, built, force=True)
    graphs["averaged"] = built / "graph.onnx"
    for name in ("engine", "averaged"):
        key = "uint8" if name == "engine" else f"{name}-uint8"
        graphs[key] = folder / f"{key}.onnx"
        save_onnx(integer_input(load_onnx(graphs[name])), graphs[key], force=True)
    static = load_onnx(graphs["engine"])
    for value in (*static.graph.inputs, *static.graph.outputs, *(v for node in static.graph for v in node.outputs)):
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    graphs["static"] = folder / "static.onnx"
    save_onnx(static, graphs["static"], force=True)
    return graphs


def average_first(model: ir.Model) -> ir.Model:
    """The head's 1x1 convolution behind the average instead of before it: the same sums, 64 times fewer products."""
    mean = next(node for node in model.graph if node.op_type == "ReduceMean")
    conv = mean.inputs[0].producer() if mean.inputs[0] is not None else None
    if conv is None or conv.op_type != "Conv" or list(conv.inputs[1].shape)[2:] != [1, 1]:  # type: ignore[arg-type,union-attr]
        raise SystemExit("the head is not a 1x1 convolution before an average")
    axes = ir.Value(name="head_axes", const_value=ir.tensor(np.array([2, 3]), name="head_axes"))
    axes.type, axes.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([2])
    model.graph.register_initializer(axes)
    source = conv.inputs[0]
    average = ir.Node("", "ReduceMean", [source, axes], [ir.AttrInt64("keepdims", 1)], name="head_average")
    average.outputs[0].name = "head_average"
    average.outputs[0].type, average.outputs[0].shape = source.type, ir.Shape([*list(source.shape)[:2], 1, 1])  # type: ignore[union-attr,arg-type]
    model.graph.insert_before(conv, [average])
    conv.replace_input_with(0, average.outputs[0])
    conv.outputs[0].shape = ir.Shape([*list(conv.outputs[0].shape)[:2], 1, 1])  # type: ignore[arg-type]
    flat = ir.Node("", "Flatten", [conv.outputs[0]], [ir.AttrInt64("axis", 1)], name="head_flat")
    output = mean.outputs[0]
    flat.outputs[0].name, flat.outputs[0].type, flat.outputs[0].shape = output.name, output.type, output.shape
    model.graph.insert_after(conv, [flat])
    model.graph.outputs[list(model.graph.outputs).index(output)] = flat.outputs[0]
    output.name = "head_old"
    model.graph.remove(mean, safe=True)
    return model


def integer_input(model: ir.Model) -> ir.Model:
    """Integers straight into the first DequantizeLinear: what is left when the camera's bytes are the input."""
    image = model.graph.inputs[0]
    quantize = next(use.node for use in image.uses() if use.node.op_type == "QuantizeLinear")
    quantized = quantize.outputs[0]
    for use in list(quantized.uses()):
        use.node.replace_input_with(use.idx, image)
    model.graph.remove(quantize, safe=True)
    image.type = ir.TensorType(ir.DataType.UINT8)
    return model


def time_one(runtime: str, graph: str, options: dict[str, Any], threads: int, seconds: float) -> float:
    """The median call in ms."""
    run = _openvino(graph, options, threads) if runtime == "openvino" else _onnxruntime(graph, options, threads)
    for _ in range(50):
        run()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _image(graph: str) -> np.ndarray[Any, Any]:
    spec = load_onnx(Path(graph)).graph.inputs[0]
    sizes = (1, *(size for size in list(spec.shape or ())[1:] if isinstance(size, int)))
    random = np.random.default_rng(0)
    if spec.dtype == ir.DataType.UINT8:
        return random.integers(0, 256, sizes, dtype=np.uint8)
    return random.standard_normal(sizes, dtype=np.float32)


def _openvino(graph: str, options: dict[str, Any], threads: int) -> Any:
    import openvino

    config = {**OPENVINO, "INFERENCE_NUM_THREADS": threads, **options}
    request = openvino.Core().compile_model(graph, "CPU", config).create_infer_request()
    image = _image(graph)
    return lambda: request.infer({0: image}, share_inputs=True)


def _onnxruntime(graph: str, options: dict[str, Any], threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    for key, value in options.items():
        if key == "level":
            settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, value)
        elif key == "arena":
            settings.enable_cpu_mem_arena = value
        else:
            settings.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(graph, settings, ["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: _image(graph)}
    return lambda: session.run(None, feed)


def measure(graphs: dict[str, Path], threads: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    found: list[list[float]] = [[] for _ in ATTEMPTS]
    for _ in range(rounds):
        for index, (runtime, _, graph, options) in enumerate(ATTEMPTS):
            job = json.dumps([runtime, str(graphs[graph]), options, threads, seconds])
            done = subprocess.run([sys.executable, __file__, "--job", job], capture_output=True, text=True)
            if done.returncode:
                print(f"{ATTEMPTS[index][:2]}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            else:
                found[index].append(float(done.stdout))
    base = {runtime: found[i] for i, (runtime, change, _, _) in enumerate(ATTEMPTS) if change == "as it is"}
    rows = []
    for (runtime, change, _, options), times in zip(ATTEMPTS, found, strict=True):
        ratios = [one / other for one, other in zip(times, base[runtime], strict=False)]
        row = {"runtime": runtime, "change": change, "options": options, "medians_ms": times}
        rows.append(
            {**row, "best_ms": min(times, default=None), "ratio": statistics.median(ratios) if ratios else None}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder of benchmarks/roofline.py"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--graphs-only", action="store_true", help="make the changed graphs, time nothing")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(time_one(*json.loads(arguments.job)))
        return
    graphs = make_graphs(arguments.keep)
    if arguments.graphs_only:
        return
    machine = read_machine()
    rows = measure(graphs, machine.cores, arguments.rounds, arguments.seconds)
    result = {"machine": machine.to_dict(), "threads": machine.cores, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        best, ratio = (float("nan") if row[key] is None else row[key] for key in ("best_ms", "ratio"))
        print(f"{row['runtime']:12s} {row['change']:32s} best {best:7.3f} ms  ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
