"""The report as GitHub-flavoured Markdown, for a job's summary or a comment: its tables, without plots and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rir_deploy.report import text
from rir_deploy.report.compare import Compared
from rir_deploy.report.schema import Run
from rir_deploy.report.sections import Section, sections
from rir_deploy.report.summary import summarize
from rir_deploy.report.table import Cell, Table
from rir_deploy.report.tables_compare import measures_table, runs_table

# What Markdown or HTML would take for markup; a name is text.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&$@!])")


def to_markdown(run: Run) -> str:
    """The verdict, the figures that a reader looks for first, and every part; long tables open on a click."""
    summary = summarize(run)
    lines = [
        f"## Deployment of {escape(run.model.checkpoint)}: {'passed' if summary.passed else '**FAILED**'}",
        "",
        escape(summary.sentence),
        "",
        *(f"- {escape(one.title)}: **{escape(one.value)}** {escape(one.note)}".rstrip() for one in summary.figures),
        "",
        escape(f"recipe {run.recipe}, parity on {text.file_name(run.data)}; {run.created}, {run.tool}"),
    ]
    for section in sections(run):
        lines += ["", *_section(section)]
    return "\n".join(lines) + "\n"


def compared_to_markdown(compared: Compared) -> str:
    """Runs side by side."""
    lines = [f"## {len(compared.runs)} runs side by side"]
    for note in compared.notes:
        lines += ["", f"> **To be wary of:** {escape(note)}"]
    for table in (runs_table(compared), measures_table(compared)):
        lines += ["", *table_lines(table)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"### {escape(section.title)}"
    for doubt in section.doubts:
        yield ""
        yield f"> **To be wary of:** {escape(doubt)}"
    for table in section.tables:
        yield ""
        yield from table_lines(table)


def table_lines(table: Table) -> Iterator[str]:
    """A table with its caption above it; a folded one opens on a click."""
    caption = escape(table.caption)
    yield from ("<details>", f"<summary>{_html(table.caption)}</summary>", "") if table.folded else (f"{caption}", "")
    yield _row(escape(column.title) for column in table.columns)
    yield _row("---:" if column.numeric else "---" for column in table.columns)
    for row in table.rows:
        yield _row(map(_cell, row))
    if table.folded:
        yield from ("", "</details>")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    words = escape(cell.text)
    if cell.tone == "bad" and words:
        words = f"**{words}**"
    return f"{words}<br>{escape(cell.note)}" if cell.note else words


def escape(words: str) -> str:
    """Text that stays what it is: on one line, with nothing that is markup."""
    return _MARKUP.sub(r"\\\1", " ".join(words.split()))


def _html(words: str) -> str:
    """The same inside an HTML element, where a backslash would be shown."""
    return " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
