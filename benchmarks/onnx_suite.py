"""The whole backend suite of an onnx release through the fold: every model as shipped and in other surroundings.

    python benchmarks/onnx_suite.py --onnx 1.20.1 -o benchmarks/results/onnx_suite.json

The release is installed into an environment of its own, for its models and their data alone; they are folded by the
environment that runs this script. Each model is folded as shipped, with its opset raised, behind a sum, and on two
branches (`onnx_variants`), with the sizes of its inputs declared and dynamic. What `fold` writes is run beside the
original on the suite's data, in ONNX Runtime or onnx's reference, apart from the check that `fold` makes itself.

Outcomes: "right"; "wrong" (exit 0 and another answer); "refused" (2 to 5, with a sentence); "unexpected" (exit 1, or
the process ended); "false alarm" (the fold's own check refuses what is right); "caught" (it refuses what is wrong);
"not comparable" (nothing runs the original, or its answers are random). Exits 1 if anything is wrong, unexpected,
caught or a false alarm.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.onnx_variants import variants

BAD = ("wrong", "unexpected", "false alarm", "caught")
# Of the largest value, by type of an output.
TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-3, "float64": 1e-9}
SECONDS = 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", default="1.20.1", metavar="VERSION", help="Release whose suite is taken.")
    parser.add_argument("--suite", type=Path, help="Folder of a suite that is there already (onnx/backend/test/data).")
    parser.add_argument("--only", default="", metavar="TEXT", help="Models with this in their path.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    with tempfile.TemporaryDirectory() as name:
        data = arguments.suite or install(arguments.onnx, Path(name))
        models = [path for path in find_models(data) if arguments.only in str(path)]
        started = time.perf_counter()
        rows = run_all(models, data, arguments.workers)
    report = summary(rows, arguments.onnx, len(models), time.perf_counter() - started)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "refused"}, indent=1))
    sys.exit(any(report["outcomes"].get(kind) for kind in BAD))


def install(version: str, folder: Path) -> Path:
    """The suite's folder in a new environment. Releases from 1.21 on make the models of single nodes on demand."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"onnx=={version}"], check=True)
    (package,) = (folder / "venv").glob("lib/python*/site-packages/onnx")
    data = package / "backend" / "test" / "data"
    if not (data / "node").exists():
        subprocess.run([python.parent / "backend-test-tools", "generate-data", "-o", data], check=True)
    return data


def find_models(data: Path) -> list[Path]:
    return sorted([*data.glob("*/*/model.onnx"), *data.glob("light/light_*.onnx")])


def run_all(models: list[Path], data: Path, workers: int) -> list[dict[str, Any]]:
    """Every variant of every model, in processes that are started again where one ends."""
    waiting: queue.Queue[Path] = queue.Queue()
    for path in models:
        waiting.put(path)
    rows: list[dict[str, Any]] = []
    threads = [threading.Thread(target=feed, args=(waiting, data, rows)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(rows, key=lambda row: (row["model"], row["variant"]))


def feed(waiting: queue.Queue[Path], data: Path, rows: list[dict[str, Any]]) -> None:
    process: subprocess.Popen[str] | None = None
    while True:
        try:
            path = waiting.get_nowait()
        except queue.Empty:
            break
        if process is None or process.poll() is not None:
            command = [sys.executable, __file__, "--worker"]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        name = str(path.relative_to(data).parent if path.name == "model.onnx" else path.relative_to(data))
        rows.extend({"model": name, **row} for row in ask(process, path))
        if waiting.qsize() % 50 == 0:
            print(f"{len(rows)} variants, {waiting.qsize()} models left", file=sys.stderr, flush=True)
    if process is not None:
        process.kill()


def ask(process: subprocess.Popen[str], path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a model; one says where the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        variant = "none"
        while line := process.stdout.readline():
            row = json.loads(line)
            if row.get("end"):
                return
            if "outcome" not in row:
                variant = row["variant"]
                continue
            yield row
        yield {"variant": variant, "outcome": "unexpected", "detail": f"the process ended: {process.wait()}"}
    finally:
        timer.cancel()


def work() -> None:
    """Read paths of models, write a line before and after each variant, and one at the end."""
    with tempfile.TemporaryDirectory() as name:
        for line in sys.stdin:
            path = Path(line.strip())
            for row in try_model(path, Path(name)):
                print(json.dumps(row), flush=True)
            print(json.dumps({"end": True}), flush=True)


def try_model(path: Path, folder: Path) -> Iterator[dict[str, Any]]:
    model = onnx.load(path)
    feeds = suite_inputs(path, model)
    for variant in variants(model):
        yield {"variant": variant.name}
        source = folder / "in.onnx"
        source.write_bytes(variant.model.SerializeToString())
        outcome, detail = try_variant(source, feeds)
        yield {"variant": variant.name, "outcome": outcome, "detail": detail}


def try_variant(source: Path, feeds: dict[str, Any]) -> tuple[str, str]:
    code, said = run_fold(source)
    if code == 3:
        unchecked, _ = run_fold(source, "--no-check")
        same = compare(source, feeds) if unchecked == 0 else ""
        return ("false alarm" if same == "" else "caught"), f"{said} / {same}"
    if code == 0:
        difference = compare(source, feeds)
        if difference is None:
            return "not comparable", ""
        return ("wrong", difference) if difference else ("right", "")
    return ("refused" if code in (2, 4, 5) else "unexpected"), said


def run_fold(source: Path, *options: str) -> tuple[int, str]:
    import contextlib
    import io

    from rir_deploy.cli import cli
    from rir_deploy.cli.common import run_command

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run_command(cli, ["fold", str(source), "-o", str(source.with_name("out.onnx")), "--force", *options])
    sentence = (said.getvalue().strip().splitlines() or [""])[-1].removeprefix("rir-deploy: error: ")
    return code, sentence.replace(str(source), source.name)[:400]


def suite_inputs(path: Path, model: onnx.ModelProto) -> dict[str, Any]:
    """By name: the suite's first data set, or random numbers where it has none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    folder = path.parent / "test_data_set_0"
    feeds = {}
    for number, value in enumerate(inputs):
        stored = folder / f"input_{number}.pb"
        if stored.exists():
            feeds[value.name] = read_value(stored, value.type)
        else:
            dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            feeds[value.name] = np.random.default_rng(number).standard_normal(dims).astype("f4")
    return feeds


def read_value(stored: Path, kind: onnx.TypeProto) -> Any:
    data = stored.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def compare(source: Path, feeds: dict[str, Any]) -> str | None:
    """How the folded file differs on the data; empty where it does not, None where nothing runs the original."""
    for run in (run_onnxruntime, run_reference):
        try:
            before, again = run(source, feeds), run(source, feeds)
        except Exception:  # each runtime has its own family of exceptions
            continue
        if any(differ(one, other) for one, other in zip(before, again, strict=True)):
            return None  # its answers are random
        try:
            after = run(source.with_name("out.onnx"), feeds)
        except Exception as error:
            return f"the folded file does not run: {str(error)[:200]}"
        return next((words for one, other in zip(before, after, strict=True) if (words := differ(one, other))), "")
    return None


def run_onnxruntime(path: Path, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def run_reference(path: Path, feeds: dict[str, Any]) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(str(path)).run(None, feeds))


def differ(before: Any, after: Any) -> str:
    if before is None or after is None:
        return "" if before is after else "one is absent"
    if isinstance(before, list):
        parts = [differ(one, other) for one, other in zip(before, after, strict=False)]
        return "lengths" if len(before) != len(after) else next((part for part in parts if part), "")
    one, other = np.asarray(before), np.asarray(after)
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{one.dtype}{one.shape} became {other.dtype}{other.shape}"
    if one.dtype.name.startswith("float8"):
        one, other = one.astype(np.float32), other.astype(np.float32)
    if one.dtype.name not in TOLERANCE:
        return "" if np.array_equal(one, other) else "other values"
    return distance(one.astype(np.float64), other.astype(np.float64), TOLERANCE[one.dtype.name])


def distance(one: NDArray[np.float64], other: NDArray[np.float64], tolerance: float) -> str:
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(one[~finite], other[~finite], True):
        return "NaN or infinities in other places"
    error = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    scale = float(np.abs(one[finite]).max(initial=0.0))
    return f"differs by {error:.3g} of {scale:.3g}" if error > tolerance * max(scale, 1e-30) else ""


def summary(rows: list[dict[str, Any]], version: str, models: int, seconds: float) -> dict[str, Any]:
    from rir_deploy.bench.machine import read_machine

    by_variant: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_variant[row["variant"]][row["outcome"]] += 1
    refused = Counter(row["detail"] for row in rows if row["outcome"] == "refused")
    return {
        "machine": read_machine().to_dict(),
        "onnx": version,
        "models": models,
        "variants": len(rows),
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
        "by_variant": {name: dict(counts) for name, counts in sorted(by_variant.items())},
        "bad": [row for row in rows if row["outcome"] in BAD],
        "refused": dict(refused.most_common()),
        "seconds": round(seconds),
    }


if __name__ == "__main__":
    main()
