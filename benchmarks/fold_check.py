"""What it costs that the fold runs its result beside the original, on the full-size RiR.

    python benchmarks/fold_check.py -o benchmarks/results/fold_check.json

The network has random weights and normalisation; it is traced once. Then processes take turns: one folds the graph
without the check, one with it. Each folds once to warm up and once for the figure; loading the graph is not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.own_process import load, run_self, write_report
from rir_deploy.bench.machine import read_machine
from rir_deploy.fold import FoldOptions, fold

PRESET = "rir-18-wide"


def trace(path: Path) -> None:
    """Write the graph of the network, with normalisation that scales."""
    import torch

    from rir_deploy.export import ExportOptions, export
    from rir_deploy.models import preset
    from rir_deploy.models.rir import RiR

    torch.manual_seed(0)
    network = RiR(preset(PRESET))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    ir.save(export(network, ExportOptions((3, 32, 32))), path)


def measure(path: Path, checked: bool) -> dict[str, Any]:
    """Fold in this process."""
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    options = FoldOptions(check=checked)
    fold(model, options)
    started = time.perf_counter()
    result = fold(model, options)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "check": None if result.check is None else result.check.to_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Path(arguments.one[0]), arguments.one[1] == "True")))
        return
    before = load()
    plain, checked = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        trace(path)
        for _ in range(arguments.rounds):
            plain.append(run_self(__file__, "--one", path, False)["seconds"])
            checked.append(run_self(__file__, "--one", path, True))
            print(f"{plain[-1]:.2f} s, checked {checked[-1]['seconds']:.2f} s", file=sys.stderr)
    costs = [run["check"]["seconds"] for run in checked]
    report = {
        "machine": read_machine().to_dict(),
        "load": before,
        "network": PRESET,
        "rounds": arguments.rounds,
        "fold_seconds": statistics.median(plain),
        "check_seconds": statistics.median(costs),
        "ratio": statistics.median(cost / seconds for cost, seconds in zip(costs, plain, strict=True)),
        "check": checked[0]["check"],
    }
    write_report(report, arguments.output)


if __name__ == "__main__":
    main()
