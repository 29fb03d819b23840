"""Write the figures of docs/parity.md from benchmarks/results, so that the document says what was measured.

python benchmarks/parity_tables.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import RESULTS, ROOT, machine, table

DOCUMENT = ROOT / "docs" / "parity.md"
HEADING = "## Figures\n"
STAGES = {"fp32": "FP32 graph", "preprocessing": "preprocessing", "int8": "INT8 graph"}


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text.partition(HEADING)[0] + figures(), encoding="utf-8")


def figures() -> str:
    """The last section of the document."""
    found = json.loads((RESULTS / "parity_power.json").read_text())
    faults, harmless = found["faults"], found["harmless"]
    passed = sum(row["passed"] for row in harmless)
    networks = ", ".join(dict.fromkeys(f"`{row['network']}`" for row in faults))
    worst = max(row["worst_own_error"] for row in harmless if row["worst_own_error"] is not None)
    parts = [
        HEADING,
        "Written by `benchmarks/parity_tables.py` from what `benchmarks/parity_power.py` found. "
        f"Networks: {networks}.\n",
        machine(found["machine"]),
        "### Faults\n",
        stages(faults),
        "### Kinds of fault\n",
        "Caught and localised, of how many injected: in several blocks, forms of the graph and networks.\n",
        kinds(faults),
        "### Harmless variations\n",
        f"{passed} of {len(harmless)} passed. The largest own error of a layer in them was {worst:.2f} of what is "
        "allowed.\n",
        table(("network", "variations", "passed"), list(_harmless(harmless))),
    ]
    missed = [row for row in faults if not row["localised"]]
    if missed:
        parts += [
            "### Missed\n",
            table(("fault", "form", "in", "exit code", "named"), [_missed(row) for row in missed]),
        ]
    return "\n".join(parts).rstrip() + "\n"


def stages(faults: list[dict[str, Any]]) -> str:
    rows = []
    for stage, title in STAGES.items():
        own = [row for row in faults if row["stage"] == stage]
        alone = {key: sum(row["by"] == [key] for row in own) for key in ("layers", "records")}
        rows.append(
            (
                title,
                len({row["fault"] for row in own}),
                len(own),
                sum(row["caught"] for row in own),
                sum(row["localised"] for row in own),
                alone["layers"],
                alone["records"],
            )
        )
    head = ("put into", "kinds", "injected", "caught", "localised", "by the layers alone", "by the records alone")
    return table(head, rows)


def kinds(faults: list[dict[str, Any]]) -> str:
    rows = []
    for stage, title in STAGES.items():
        own = [row for row in faults if row["stage"] == stage]
        for name in dict.fromkeys(row["fault"] for row in own):
            some = [row for row in own if row["fault"] == name]
            rows.append(
                (title, name, len(some), sum(row["caught"] for row in some), sum(row["localised"] for row in some))
            )
    return table(("put into", "fault", "injected", "caught", "localised"), rows)


def _harmless(rows: list[dict[str, Any]]) -> Iterable[tuple[str, int, int]]:
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        yield network, len(own), sum(row["passed"] for row in own)


def _missed(row: dict[str, Any]) -> tuple[object, ...]:
    return row["fault"], f"{row['network']}, {row['form']}", "/".join(row["expected"]), row["exit_code"], row["found"]


if __name__ == "__main__":
    main()
