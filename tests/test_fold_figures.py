"""The figures in docs/folding.md are those in benchmarks/results."""

from __future__ import annotations

from benchmarks.fold_tables import DOCUMENT, HEADING, figures


def test_the_document_says_what_was_measured() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert HEADING + text.partition(HEADING)[2] == figures()
