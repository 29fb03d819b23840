"""Write docs/performance.md from the figures in benchmarks/results, so that the document says what was measured.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    latency, parity, int8 = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("latency", "parity", "int8")
    )
    parts = [
        "# Performance\n",
        "Written by `benchmarks/tables.py` from `benchmarks/results/`; the scripts beside it make the figures.\n",
        "## Latency of the full-size RiR\n",
        machine(latency["machine"]),
        "Random weights, synchronous calls, each contender in processes of its own and in turns "
        f"({latency['settings']['rounds']} rounds; medians over all). `benchmarks/latency.py`. "
        "Nothing here was run on a GPU. How to read it: [latency.md](latency.md).\n",
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
        machine(parity["machine"]),
        f"`{parity['checkpoint']}` (CIFAR-10, 1.06 M parameters) on {parity['rows'][0]['images']:,} test images "
        "against PyTorch; INT8 by plain min-max, everything else left out, on 512 training images. "
        "`benchmarks/parity.py`. FP16 in ONNX Runtime and OpenVINO is computed in FP32 on this CPU. "
        "Rows marked *simulation* ran the engine's graph in ONNX Runtime.\n",
        parity_table(parity["rows"]),
        "At plain min-max the folded INT8 graph loses some 5 dB to the traced one: folding puts an identity of 1 into "
        "kernels of about 0.05, which sets the step of their rows. What is done about it is in the next "
        "table.\n",
        *int8_section(int8),
    ]
    (ROOT / "docs" / "performance.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def write_section(document: Path, heading: str, text: str) -> None:
    """Replace what a document holds from a heading to its end; ``text`` begins with that heading."""
    before = document.read_text(encoding="utf-8").partition(heading)[0]
    document.write_text(before + text, encoding="utf-8")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
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


def int8_section(found: dict[str, Any]) -> list[str]:
    settings, rows, latency = found["settings"], found["rows"], found.get("latency")
    answered = [row for row in rows if "error" not in row]
    tools = sorted({row["tool_version"] for row in answered} - {""})
    timing = (
        "The last column is the latency of batch 1 in ONNX Runtime over that of the plain INT8 graph in the same round "
        f"(*{latency['baseline']}*), {latency['settings']['threads']} threads, "
        f"the median of {latency['settings']['rounds']} rounds in turns; graphs for TensorRT or OpenVINO are not timed "
        "there.\n"
        if latency
        else "Not yet timed.\n"
    )
    return [
        "## INT8 beside other quantisers\n",
        f"`{settings['checkpoint']}` on {settings['images']:,} test images against PyTorch in FP32 "
        f"({settings['reference_top1']:.2%}), everybody calibrated on the same {settings['calibration']['images']} "
        "training images; best SQNR of the logits first. `benchmarks/int8.py`. Graphs run in ONNX Runtime, those of "
        "NNCF on OpenVINO in OpenVINO; those with TensorRT's placement are simulated there. Intervals are the paired "
        f"95 % ones of Tango; a negative drop is a gain. Tools: {'; '.join(tools)}.\n",
        int8_table(answered, latency["rows"] if latency else []),
        timing,
        "".join(f"- {row['label']}: failed ({row['error']})\n" for row in rows if "error" in row),
    ]


def int8_table(rows: list[dict[str, Any]], timed: list[dict[str, Any]]) -> str:
    ratios = {row["label"]: row["ratio"] for row in timed if "ratio" in row}
    body = []
    for row in sorted(rows, key=lambda row: math.inf if row["sqnr_db"] is None else row["sqnr_db"], reverse=True):
        drop, low, high = (round(value, 2) + 0.0 for value in (row["top1_drop"], *row["drop_interval"]))  # no -0.00
        body.append(
            (
                row["name"],
                row["graph"],
                f"{row['sqnr_db']:.1f} dB" if row["sqnr_db"] is not None else "exact",
                f"{row['agreement']:.2%}",
                f"{row['top1']:.2%}",
                f"{drop:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{row['max_abs_error']:.2g}",
                f"{row['size_share']:.3f}",
                f"{row['convs']} · {row['qdq_pairs']}",
                f"{ratios[row['label']]:.2f}" if row["label"] in ratios else "-",
            )
        )
    columns = ("quantiser", "graph", "SQNR", "agreement", "top-1", "drop, points", "largest error", "of FP32's bytes")
    return table((*columns, "convolutions · Q/DQ pairs", "time"), body)


if __name__ == "__main__":
    main()
