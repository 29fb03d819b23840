"""INT8 by this tool and by its peers, on the same checkpoint, calibration images and test images.

    python benchmarks/int8.py rir_cifar10_w16.pt --recipe cifar10 --train cifar10-train.zip --test cifar10-test.zip \
        -o benchmarks/results/int8.json --graphs graphs --modelopt-python modelopt/bin/python
    python benchmarks/int8.py --time -o benchmarks/results/int8.json --graphs graphs

The first compares every contender with the checkpoint in PyTorch on all test images; the second times the graphs that
the first left, on a quiet machine. Every contender quantises and answers in processes of its own: one that fails
becomes a row that says why. NNCF has to be installed beside this tool, ModelOpt in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_contenders import GRAPHS, Contender, contenders
from int8_cost import graph_cost, graph_sha256, time_graphs
from numpy.typing import NDArray

from rir_deploy import __version__
from rir_deploy.artifacts import sha256_file
from rir_deploy.bench.machine import read_machine
from rir_deploy.data.sampling import choose
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.pipeline.sides import open_side
from rir_deploy.pipeline.sources import image_batches, open_dataset
from rir_deploy.recipe import Recipe
from rir_deploy.verify import GATES, verify

KEYS = ("agreement", "sqnr_db", "max_abs_error", "max_relative_error", "top1_drop")
# Long past anything seen: what hangs is a failure as well.
LIMIT_S = 3600


@dataclass(frozen=True)
class Study:
    """What all contenders share.

    Attributes:
        folder: holds traced.onnx, folded.onnx, calibration.npy and test.npy, and the contenders' graphs.
        labels: (n,) of the test images.
        reference: (n, classes), the checkpoint's logits in PyTorch.
        settings: what the rows of one file have in common.
    """

    folder: Path
    labels: NDArray[np.int64]
    reference: NDArray[np.floating]
    settings: dict[str, Any]


def prepare(arguments: argparse.Namespace, folder: Path) -> Study:
    """Export both graphs and write the images that everybody gets."""
    graphs = {}
    for name in GRAPHS:
        request = ExportRequest(arguments.checkpoint, arguments.recipe, fold=name == "folded")
        recipe = export_file(request, folder / f"{name}.onnx", force=True).recipe
        graphs[name] = graph_sha256(folder / f"{name}.onnx")
    train, test = (open_dataset(getattr(arguments, part), recipe, part) for part in ("train", "test"))
    if test.labels is None:
        sys.exit(f"'{arguments.test}' has no labels; name labelled images")
    # As `rir-deploy quantize` chooses them.
    chosen = choose(train.labels, len(train), recipe.calibration.samples, recipe.calibration.seed)
    for name, images in (("calibration", train.raw(chosen)), ("test", test.raw())):
        np.save(folder / f"{name}.npy", recipe.preprocessing.normalize(images))
    with open_side(arguments.checkpoint) as side:
        run = side.make_runner(recipe.preprocessing)
        reference = np.concatenate([run(images) for images, _ in image_batches(test, 50)])
    settings = {
        "checkpoint": arguments.checkpoint.name,
        "checkpoint_sha256": sha256_file(arguments.checkpoint),
        "graph_sha256": graphs,
        "train_sha256": train.source.fingerprint(),
        "test_sha256": test.source.fingerprint(),
        "calibration": _calibration(recipe),
        "images": len(test),
        "reference_top1": float((reference.argmax(axis=1) == test.labels).mean()),
    }
    return Study(folder, test.labels, reference, settings)


def _calibration(recipe: Recipe) -> dict[str, Any]:
    return {"images": recipe.calibration.samples, "seed": recipe.calibration.seed}


def compete(contender: Contender, study: Study, arguments: argparse.Namespace) -> dict[str, Any]:
    """A contender's row: its figures, or why there are none."""
    head = {**asdict(contender), "label": contender.label}
    output = study.folder / contender.file_name
    try:
        started = time.perf_counter()
        if contender.tool == "fp32":
            shutil.copy(study.folder / f"{contender.graph}.onnx", output)
            made: dict[str, Any] = {"tool_version": ""}
        else:
            said = _run(contender.command(study.folder, arguments.train, arguments.modelopt_python))
            made = _ours(said) if contender.tool == "rir-deploy" else {"tool_version": _last_line(said)}
        made["seconds"] = time.perf_counter() - started
        logits = study.folder / "logits.npy"
        worker = str(Path(__file__).with_name("int8_answer.py"))
        said = _run([sys.executable, worker, str(output), str(study.folder / "test.npy"), str(logits)])
        made["runs_on"] = _last_line(said)
        cost = graph_cost(output, study.folder / f"{contender.graph}.onnx")
    except (RuntimeError, OSError) as error:
        return {**head, "error": str(error).replace(f"{study.folder}/", "")}
    return {**head, **made, **cost, **_quality(logits, study)}


def _ours(said: str) -> dict[str, Any]:
    """The version and what was calibrated to, from what `rir-deploy quantize --json` prints."""
    calibration = json.loads(said)["calibration"]
    calibration.pop("candidates", None)
    return {"tool_version": f"rir-deploy {__version__}", "calibration": calibration}


def _quality(logits: Path, study: Study) -> dict[str, Any]:
    answers = np.load(logits)
    # Both sides have answered already: the images do not matter here, only the order.
    images = np.zeros((len(answers), 0), dtype=np.uint8)
    result = verify([(images, study.labels)], lambda _: study.reference, lambda _: answers, GATES["int8"])
    assert result.drop is not None
    found = result.to_dict()
    interval = [result.drop.low, result.drop.high]
    return {"top1": result.accuracy.candidate_top1, **{key: found[key] for key in KEYS}, "drop_interval": interval}


def _run(command: list[str]) -> str:
    """What a process prints. RuntimeError, with its last words, where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end after {LIMIT_S} s") from None
    if done.returncode:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise RuntimeError(": ".join([how, *done.stderr.strip().splitlines()[-1:]]))
    return done.stdout


def _last_line(said: str) -> str:
    """Tools print before the worker does."""
    return said.strip().splitlines()[-1]


def evaluate(arguments: argparse.Namespace, folder: Path) -> None:
    """Write the rows of all contenders, or those of ``--only`` anew; after each, since all of them take an hour."""
    chosen = [one for one in contenders() if not arguments.only or any(name in one.label for name in arguments.only)]
    if not arguments.modelopt_python:
        print("ModelOpt: no --modelopt-python, left out", file=sys.stderr)
        chosen = [one for one in chosen if one.tool != "modelopt"]
    if not chosen:
        sys.exit(f"no contender has {' or '.join(arguments.only)} in its name")
    study = prepare(arguments, folder)
    rows = {}
    if arguments.only and arguments.output.exists():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
        if found["settings"] != study.settings:
            sys.exit(f"'{arguments.output}' has rows of other graphs or data; choose another output")
        rows = {row["label"]: row for row in found["rows"]}
    order = [one.label for one in contenders()]
    result = {"settings": study.settings, "machine": read_machine().to_dict()}
    for contender in chosen:
        rows[contender.label] = compete(contender, study, arguments)
        print(line(rows[contender.label]), flush=True)
        write(arguments.output, {**result, "rows": [rows[label] for label in order if label in rows]})


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['label']:62s} failed: {row['error']}"
    low, high = row["drop_interval"]
    sqnr = "exact" if row["sqnr_db"] is None else f"{row['sqnr_db']:5.1f} dB"
    return (
        f"{row['label']:62s} top-1 {row['top1']:.2%} drop {row['top1_drop']:+.2f} ({low:+.2f} to {high:+.2f}) "
        f"agreement {row['agreement']:.2%} {sqnr} size {row['size_share']:.3f} convs {row['convs']} "
        f"Q/DQ {row['qdq_pairs']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--recipe", help="preprocessing, where the checkpoint records none")
    parser.add_argument("--train", help="images to calibrate on")
    parser.add_argument("--test", help="labelled images, disjoint from those")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--graphs", type=Path, help="folder to leave the graphs in (default: a temporary one)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="do these anew, keep the output's others")
    parser.add_argument("--modelopt-python", metavar="PATH", help="the Python of ModelOpt's environment")
    parser.add_argument("--time", action="store_true", help="time the graphs of an earlier run instead")
    arguments = parser.parse_args()
    if arguments.time:
        if arguments.graphs is None:
            parser.error("--time needs the --graphs that an earlier run left")
        result = json.loads(arguments.output.read_text(encoding="utf-8"))
        write(arguments.output, {**result, "latency": time_graphs(result["rows"], arguments.graphs)})
        return
    if None in (arguments.checkpoint, arguments.train, arguments.test):
        parser.error("name a checkpoint, --train and --test")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.graphs or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        evaluate(arguments, folder)


if __name__ == "__main__":
    main()
