"""Parity of everything that a trained checkpoint becomes: folded ONNX, and engines of every precision and backend.

    python benchmarks/parity.py rir_cifar10_w16.pt --recipe cifar10 --calibration cifar10-train.zip \
        --test cifar10-test.zip -o benchmarks/results/parity.json

Each row is compared with the checkpoint in PyTorch on all test images. Engines that cannot run here are verified by
simulation and marked so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rir_deploy.bench.machine import read_machine
from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.pipeline.lower import PRECISIONS
from rir_deploy.pipeline.sides import open_side
from rir_deploy.pipeline.sources import image_batches, open_dataset
from rir_deploy.recipe import load_recipe
from rir_deploy.verify import GATES, verify

KEYS = ("passed", "agreement", "max_abs_error", "max_relative_error", "mean_abs_error", "sqnr_db", "images")


class Proof:
    """The test images with PyTorch's answers to them, computed once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        recipe = load_recipe(arguments.recipe)
        self.dataset = open_dataset(arguments.test, recipe, "test")
        with open_side(arguments.checkpoint) as reference:
            run = reference.make_runner(recipe.preprocessing)
            self.batches = [(*batch, run(batch[0])) for batch in image_batches(self.dataset, 50)]

    def row(self, name: str, candidate: Path) -> dict[str, Any]:
        answers = iter([logits for *_, logits in self.batches])
        with open_side(candidate, simulate=True) as side:
            run = side.make_runner(self.dataset.preprocessing)
            pairs = ((images, labels) for images, labels, _ in self.batches)
            found = verify(pairs, lambda _: next(answers), run, GATES[side.precision]).to_dict()
        sides = {f"{one}_top1": found[one]["top1"] for one in ("reference", "candidate")}  # type: ignore[index]
        figures = {key: found[key] for key in KEYS}
        return {"name": name, "simulation": side.simulation, "runs_on": side.runs_on, **sides, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--calibration", required=True, help="images that INT8 ranges are found on")
    parser.add_argument("--test", required=True, help="labelled images, disjoint from those")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    proof = Proof(arguments)
    rows, builds = [], []
    try:
        for fold in (False, True):
            name = "folded" if fold else "traced"
            onnx = folder / f"{name}.onnx"
            export_file(ExportRequest(arguments.checkpoint, arguments.recipe, fold=fold), onnx, force=False)
            rows.append(proof.row(f"{name} ONNX", onnx))
            for backend in BACKENDS:
                if not get_backend(backend).availability().can_build:
                    continue
                for precision in PRECISIONS:
                    engine = folder / f"{name}-{backend}-{precision}"
                    targets = ("sm89",) if backend == "tensorrt-rtx" else ()
                    data = arguments.calibration
                    # Plain min-max: `int8.py` measures what the tool does beyond it.
                    calibration = CalibrationRequest()
                    if precision != "fp32":
                        calibration = CalibrationRequest(
                            data, method="minmax", rounding="nearest", equalize=False, correct_bias=False
                        )
                    request = BuildRequest(
                        onnx, backend, precision, calibration=calibration, targets=targets, fold=False
                    )
                    built = build_engine(request, engine, force=False)
                    label = f"{name} {backend} {precision}"
                    builds.append(
                        {"name": label, "size_bytes": built.manifest.size_bytes, "seconds": built.build_seconds}
                    )
                    rows.append(proof.row(label, engine))
                    print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(folder)
    result = {
        "machine": read_machine().to_dict(),
        "checkpoint": arguments.checkpoint.name,
        "rows": rows,
        "builds": builds,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for found in rows:
        sqnr = "exact" if found["sqnr_db"] is None else f"{found['sqnr_db']:6.1f} dB"
        print(
            f"{found['name']:32s} top-1 {found['candidate_top1']:.2%} agreement {found['agreement']:.2%} "
            f"error {found['max_relative_error']:.1e} {sqnr}{' (simulation)' if found['simulation'] else ''}"
        )


if __name__ == "__main__":
    main()
