"""Write docs/performance.md from the figures in benchmarks/results, so that the document says what was measured.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    latency, parity = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("latency", "parity"))
    parts = [
        "# Performance\n",
        "Written by `benchmarks/tables.py` from `benchmarks/results/`; the scripts beside it make the figures.\n",
        machine(latency["machine"]),
        "## Latency of the full-size RiR\n",
        "Random weights, synchronous calls, each contender in processes of its own and in turns "
        f"({latency['settings']['rounds']} rounds; medians over all). `benchmarks/latency.py`. "
        "Nothing here was run on a GPU.\n",
        latency_table(latency["rows"]),
        notes(latency["notes"]),
        "### What the fold gains\n",
        "Ratios of medians.\n",
        table(("", "ratio"), [(name, f"{ratio:.2f}") for name, ratio in latency["ratios"].items()]),
        "### The graphs\n",
        graphs(latency["graphs"]),
        "### TensorRT-RTX, built for sm89 with no GPU, not run\n",
        rtx(latency["tensorrt_rtx_sm89"]),
        "## Parity of a trained checkpoint\n",
        f"`{parity['checkpoint']}` (CIFAR-10, 1.06 M parameters) on {parity['rows'][0]['images']:,} test images "
        "against PyTorch; INT8 by min-max on 512 training images. `benchmarks/parity.py`. FP16 in ONNX Runtime and "
        "OpenVINO is computed in FP32 on this CPU. Rows marked *simulation* ran the engine's graph in ONNX Runtime.\n",
        parity_table(parity["rows"]),
        "At plain min-max the folded INT8 graph loses some 5 dB to the traced one: folding puts an identity of 1 into "
        "kernels of about 0.05, which sets the step of their rows. It is faster all the same, and still agrees with "
        "FP32 on 98.9 % of the images.\n",
    ]
    (ROOT / "docs" / "performance.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def machine(found: dict[str, Any]) -> str:
    features = ", ".join(found["features"])
    return (
        f"Machine: {found['cpu']} ({features}), {found['cores']} cores, {found['memory_gb']} GB, {found['system']}.\n"
    )


def latency_table(rows: list[dict[str, Any]]) -> str:
    batches = sorted({row["batch"] for row in rows})
    cells = {(row["contender"], row["batch"]): row["latency_ms"] for row in rows}
    names = dict.fromkeys(row["contender"] for row in rows)
    columns = ("graph", "runtime", "precision", *(f"batch {b}: median (p90), ms" for b in batches))
    body = []
    for name in names:
        figures = [cells.get((name, batch)) for batch in batches]
        body.append((*name.split(" / "), *(f"{f['median']:.2f} ({f['p90']:.2f})" if f else "-" for f in figures)))
    return table(columns, body)


def notes(found: list[str]) -> str:
    return "".join(f"- {note}\n" for note in found)


def graphs(rows: list[dict[str, Any]]) -> str:
    body = [
        (
            row["name"],
            row["convs"],
            row["nodes"],
            f"{row['macs'] / 1e9:.3f} G",
            "-" if row["seconds"] is None else f"{row['seconds']:.1f} s",
        )
        for row in rows
    ]
    return table(("graph", "convolutions", "nodes", "multiply-adds", "export, fold and check"), body)


def rtx(rows: list[dict[str, Any]]) -> str:
    full = {row["graph"]: row["size_bytes"] for row in rows if row["precision"] == "fp32"}
    body = [
        (
            row["graph"],
            row["precision"],
            f"{row['size_bytes'] / 1e6:.1f} MB",
            f"{row['size_bytes'] / full[row['graph']]:.3f}",
            f"{row['seconds']:.2f} s",
        )
        for row in rows
    ]
    return table(("graph", "precision", "engine", "of FP32", "build"), body)


def parity_table(rows: list[dict[str, Any]]) -> str:
    body = []
    for row in rows:
        sqnr = "exact" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"
        name = row["name"] + (" *(simulation)*" if row["simulation"] else "")
        error = f"{row['max_relative_error']:.1e}"
        body.append((name, f"{row['candidate_top1']:.2%}", f"{row['agreement']:.2%}", error, sqnr))
    columns = ("engine", "top-1", "agreement", "largest error / largest logit", "SQNR")
    return table(columns, body)


if __name__ == "__main__":
    main()
