"""The figures in docs/parity.md are those in benchmarks/results, and nothing was missed."""

from __future__ import annotations

import json

from benchmarks.parity_tables import DOCUMENT, HEADING, figures
from benchmarks.tables import RESULTS


def test_the_document_says_what_was_measured() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert HEADING + text.partition(HEADING)[2] == figures()


def test_every_fault_was_put_in_its_place_and_no_variation_alarmed() -> None:
    found = json.loads((RESULTS / "parity_power.json").read_text(encoding="utf-8"))
    assert len({row["fault"] for row in found["faults"] if row["stage"] == "fp32"}) >= 40
    assert all(row["localised"] for row in found["faults"])
    assert len(found["harmless"]) >= 200
    assert all(row["passed"] for row in found["harmless"])
