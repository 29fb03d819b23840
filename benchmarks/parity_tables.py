"""Write the figures of docs/parity.md from benchmarks/results, so that the document says what was measured.

python benchmarks/parity_tables.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.parity_power import STAGES
from benchmarks.parity_power import markdown as counts
from benchmarks.tables import RESULTS, ROOT, machine, table, write_section

DOCUMENT = ROOT / "docs" / "parity.md"
HEADING = "## Figures\n"


def main() -> None:
    write_section(DOCUMENT, HEADING, figures())


def figures() -> str:
    """The last section of the document."""
    found = json.loads((RESULTS / "parity_power.json").read_text())
    faults = found["faults"]
    networks = ", ".join(dict.fromkeys(f"`{row['network']}`" for row in faults))
    parts = [
        HEADING,
        "Written by `benchmarks/parity_tables.py` from what `benchmarks/parity_power.py` found. "
        f"Networks: {networks}.\n",
        machine(found["machine"]),
        "### Faults and harmless variations\n",
        counts(found["summary"]) + "\n",
        "### Kinds of fault\n",
        "Caught and localised, of how many injected: in several blocks, forms of the graph and networks.\n",
        kinds(faults),
    ]
    missed = [row for row in faults if not row["localised"]]
    if missed:
        parts += [
            "### Missed\n",
            table(("fault", "form", "in", "exit code", "named"), [_missed(row) for row in missed]),
        ]
    return "\n".join(parts).rstrip() + "\n"


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


def _missed(row: dict[str, Any]) -> tuple[object, ...]:
    return row["fault"], f"{row['network']}, {row['form']}", "/".join(row["expected"]), row["exit_code"], row["found"]


if __name__ == "__main__":
    main()
