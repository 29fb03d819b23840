"""Write the figures of docs/latency.md from benchmarks/results, so that the document says what was measured.

python benchmarks/latency_tables.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import RESULTS, ROOT, machine, table, write_section

DOCUMENT = ROOT / "docs" / "latency.md"
HEADING = "## Held against other timers\n"


def main() -> None:
    write_section(DOCUMENT, HEADING, figures())


def figures() -> str:
    """The last section of the document."""
    found = json.loads((RESULTS / "peer_timers.json").read_text())
    settings, rows = found["settings"], found["rows"]
    parts = [
        HEADING,
        "Written by `benchmarks/latency_tables.py` from what `benchmarks/peer_timers.py` measured: the full-size RiR, "
        f"folded, random weights, batch 1, {settings['threads']} threads; each timer in a process of its own, in "
        f"turns, {settings['rounds']} rounds of {settings['seconds']:g} s; medians of the rounds.\n",
        machine(found["machine"]),
        rows_table(rows),
        f"The largest difference is {max(abs(row['difference']) for row in rows):.1%}. `benchmark_app` is OpenVINO's "
        "own: its latency is by the runtime's clock, without the Python binding. The plain loop calls ONNX Runtime "
        "from as many threads as there are cores when pipelined.\n",
        "".join(f"- While it ran: {note}\n" for note in found["notes"]),
    ]
    return "\n".join(part for part in parts if part)


def rows_table(rows: list[dict[str, Any]]) -> str:
    body = []
    for row in rows:
        unit = "ms" if row["mode"] == "synchronous" else "images/s"
        spread = max(max(row["rounds"][who]) / min(row["rounds"][who]) - 1 for who in ("ours", "theirs"))
        ours, theirs = (
            f"{row[who]:.2f} {unit}" if unit == "ms" else f"{row[who]:.0f} {unit}" for who in ("ours", "theirs")
        )
        body.append(
            (row["engine"], row["mode"], row["peer"], ours, theirs, f"{row['difference']:+.1%}", f"{spread:.1%}")
        )
    return table(("engine", "mode", "peer", "bench", "the peer", "difference", "rounds differ by up to"), body)


if __name__ == "__main__":
    main()
