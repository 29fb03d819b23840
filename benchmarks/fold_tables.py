"""Write the figures of docs/folding.md from benchmarks/results, so that the document says what was measured.

python benchmarks/fold_tables.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import RESULTS, ROOT, machine, table, write_section

DOCUMENT = ROOT / "docs" / "folding.md"
HEADING = "## Figures\n"


def main() -> None:
    write_section(DOCUMENT, HEADING, figures())


def figures() -> str:
    """The last section of the document."""
    names = ("fold_scaling", "fold_large", "fold_models", "fold_properties")
    check, suite = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("fold_check", "onnx_suite"))
    scaling, large, models, properties = (json.loads((RESULTS / f"{name}.json").read_text()) for name in names)
    parts = [
        HEADING,
        "Written by `benchmarks/fold_tables.py`. Latency of folded models is in [performance.md](performance.md).\n",
        machine(scaling["machine"]),
        "### Models of other packages\n",
        "Random weights; the error is that of the folded graph in ONNX Runtime against PyTorch, relative to the "
        "largest output. `benchmarks/fold_models.py`.\n",
        models_table(models["rows"]),
        "### Properties\n",
        properties_text(properties),
        properties_table(properties["kinds"]),
        "### The backend suite of onnx\n",
        suite_text(suite),
        suite_table(suite["by_variant"]),
        "### What the check costs\n",
        check_text(check),
        "### Depth\n",
        f"RiRs of 16 + 16 channels at 8×8, each in a process of its own, medians of {scaling['repeats']}. Memory is "
        f"the peak of the process, and what building the graph took of it. Load before the start: {scaling['load']}. "
        "`benchmarks/fold_scaling.py`.\n",
        scaling_table(scaling["rows"]),
        f"Time grows with depth to the power of {scaling['exponent']:.2f}.\n",
        "### A model over 2 GB\n",
        f"Four blocks of {large['width']} + {large['width']} channels in FP32, from file to file, reading, checking "
        f"and writing included. Load before the start: {large['load']}. `benchmarks/fold_large.py`.\n",
        large_table(large),
    ]
    return "\n".join(parts)


def change(counts: dict[str, int], unit: int = 1, form: str = ",") -> str:
    return f"{counts['before'] / unit:{form}} → {counts['after'] / unit:{form}}"


def models_table(rows: list[dict[str, Any]]) -> str:
    body = [
        (
            f"`{row['name']}`",
            row["package"],
            row["exporter"],
            change(row["convs"], form=",.0f"),
            row["blocks"],
            change(row["nodes"], form=",.0f"),
            change(row["macs"], 10**6, ",.1f"),
            f"{row['relative_error']:.1e}",
        )
        for row in rows
    ]
    columns = ("model", "package", "exporter", "convolutions", "blocks", "nodes", "million multiply-adds", "error")
    return table(columns, body)


def properties_text(found: dict[str, Any]) -> str:
    failures = sum(len(kind["failures"]) for kind in found["kinds"].values())
    graphs = sum(kind["graphs"] for kind in found["kinds"].values())
    return (
        f"Same function to {found['tolerance']:.0e} in float64 (in FP32, in ONNX Runtime, to "
        f"{found['tolerance_fp32']:.0e} of the largest output), no more multiply-adds or weight bytes, folding again "
        f"changes nothing, same input same bytes, a valid graph: {failures} failures in {graphs:,} random graphs (seed "
        f"{found['seed']}, {found['seconds'] / 60:.0f} minutes). `benchmarks/fold_properties.py`.\n"
    )


def properties_table(kinds: dict[str, Any]) -> str:
    names = {
        "family": "RiRs and relatives",
        "random": "any op on any tensor",
        "open": "with If, Loop, Scan, computed constants, sizes and batches that depend on the input",
    }
    body = [
        (
            names[kind],
            f"{row['graphs']:,}",
            f"{row['folded']:,}",
            len(row["failures"]),
            f"{row['worst_relative_error']:.1e}",
            change(row["convs"], form=",.0f"),
            f"{row['blocks']:,}",
        )
        for kind, row in kinds.items()
    ]
    return table(("graphs", "number", "folded", "failures", "worst error", "convolutions", "blocks"), body)


def suite_text(found: dict[str, Any]) -> str:
    return (
        f"All {found['models']:,} models of the backend suite of onnx {found['onnx']}, as shipped and in other "
        f"surroundings, each with the sizes of its inputs declared and dynamic: {found['variants']:,} graphs. What was "
        "written is run beside the original on the suite's data, apart from the fold's own check. *Unexpected* is exit "
        "code 1 or the end of the process; a *false alarm* is a right fold that the check refuses, *caught* a wrong "
        "one. *Not comparable*: nothing runs the original, or its answers are random. `benchmarks/onnx_suite.py`.\n"
    )


def suite_table(found: dict[str, dict[str, int]]) -> str:
    kinds = ("right", "wrong", "unexpected", "false alarm", "caught", "refused", "not comparable")
    body = [(name, *(f"{counts.get(kind, 0):,}" for kind in kinds)) for name, counts in found.items()]
    return table(("surroundings", *kinds), body)


def check_text(found: dict[str, Any]) -> str:
    check = found["check"]
    return (
        f"Full-size RiR, {found['rounds']} rounds in processes that take turns, medians: `fold` "
        f"{found['fold_seconds']:.2f} s, the check {found['check_seconds']:.2f} s, {found['ratio']:.2f} of it (load "
        f"before the start: {found['load']}). Largest difference {check['difference']:.1e} of the largest output, "
        f"limit {check['limit']:.0e}, in {check['runtime']}. `benchmarks/fold_check.py`.\n"
    )


def scaling_table(rows: list[dict[str, Any]]) -> str:
    body = [
        (
            f"{row['blocks']:,}",
            change(row["nodes"], form=",.0f"),
            f"{row['seconds']:.2f} s",
            f"{row['peak_gb']:.2f} GB",
            f"{row['peak_gb_before']:.2f} GB",
        )
        for row in rows
    ]
    return table(("blocks", "nodes", "time of `fold`", "peak memory", "before `fold`"), body)


def large_table(found: dict[str, Any]) -> str:
    body: list[tuple[object, ...]] = [
        ("weights, in a file beside the graph", f"{found['bytes'] / 1e9:.2f} GB"),
        ("convolutions", change(found["convs"], form=",.0f")),
        ("time", f"{found['seconds']:.0f} s"),
        ("peak memory", f"{found['peak_gb']:.1f} GB"),
        ("difference of the two files' outputs in ONNX Runtime, relative", f"{found['relative_error']:.1e}"),
    ]
    return table(("", ""), body)


if __name__ == "__main__":
    main()
