"""What the fold makes of models that other packages ship: convolutions, nodes and multiply-adds, before and after.

    python -m pip install ".[host,dev,models]"
    python benchmarks/fold_models.py -o benchmarks/results/fold_models.json

Weights are random, and batch norms do something. Each folded graph is held against PyTorch in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.own_process import write_report
from rir_deploy.bench.machine import read_machine
from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from tests.fold.third_party import SHIPPED, Exporter, Shipped
from tests.fold.torch_graphs import run, torchscript

OPSET = 17  # of the TorchScript exporter


def trace(model: torch.nn.Module, exporter: Exporter, shape: tuple[int, int, int]) -> ir.Model:
    if exporter == "dynamo":
        return export(model, ExportOptions(shape))
    with tempfile.TemporaryDirectory() as folder:
        return torchscript(model, torch.zeros(2, *shape), Path(folder) / "traced.onnx", OPSET)


def row(shipped: Shipped, exporter: Exporter) -> dict[str, Any]:
    model = shipped.build()
    result = fold(trace(model, exporter, shipped.shape))
    x = np.random.default_rng(1).standard_normal((2, *shipped.shape)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    error = float(np.abs(run(result.model, x) - expected).max() / np.abs(expected).max())
    counts = {
        key: {"before": getattr(result.before, key), "after": getattr(result.after, key)}
        for key in ("convs", "nodes", "macs")
    }
    package = shipped.package.partition(".")[0]
    names = {"name": shipped.name, "package": f"{package} {importlib.metadata.version(package)}", "exporter": exporter}
    refused = len(result.refused)
    return {**names, **counts, "blocks": result.blocks, "refused": refused, "relative_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    for shipped in SHIPPED:
        for exporter in shipped.exporters:
            rows.append(row(shipped, exporter))
            print(rows[-1], file=sys.stderr)
    write_report({"machine": read_machine().to_dict(), "torch": torch.__version__, "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
