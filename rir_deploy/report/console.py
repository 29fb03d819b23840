"""Tables, progress bars and figures for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rir_deploy.file_system import writing_to
from rir_deploy.plain_text import printable

# Letters of a cell under which it is no longer read with ease.
_FOLDED = 8

if TYPE_CHECKING:
    from rir_deploy.pipeline.progress import Progress
    from rir_deploy.report.table import Table


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout, numbers aligned to the right; where the terminal is too narrow for it, a card a row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title, columns = printable(title), [printable(column) for column in columns]
    rows = [[printable(str(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
    # Text, since in plain strings rich takes [brackets] for markup, and an extra is written in brackets.
    table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or _is_figure(row[index]) for row in rows)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    # Piped output has no width of its own: never wrap what a script will read.
    if not console.is_terminal:
        console = Console(width=200)
    with writing_to("to stdout", "send it elsewhere"):
        if console.is_terminal and _least_width(columns, rows) > console.width:
            for card in _cards(title, columns, rows):
                console.print(Text.assemble((card[0], "bold"), card[1]))
        else:
            console.print(table)


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Of a table whose cells are folded no further than to `_FOLDED` letters."""
    longest = [
        max(len(str(cell)) for cell in (title, *(row[index] for row in rows))) for index, title in enumerate(columns)
    ]
    return sum(min(width, _FOLDED) + 3 for width in longest) + 1


def _cards(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[tuple[str, str]]:
    """The title, and the first cell of each row with what the others say: heading and text."""
    yield title, ""
    for row in rows:
        said = (f"{column} {cell}" for column, cell in zip(columns[1:], row[1:], strict=True))
        yield str(row[0]), f": {', '.join(said)}"


def show(table: Table) -> None:
    """A table of the report on stdout."""
    rows = [[f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row] for row in table.rows]
    print_table(table.caption, [column.title for column in table.columns], rows)


def _is_figure(cell: object) -> bool:
    return isinstance(cell, str) and (cell[:1].isdigit() or cell in ("", "-", "–"))


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A `Progress` that draws bars on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)  # the exporter's own words are kept from sys.stderr meanwhile
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, int] = {}

        def update(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(printable(label), total=total)
            bars.update(tasks[label], completed=done, total=total)  # type: ignore[arg-type]

        yield update


def size(count: float) -> str:
    """Bytes for people: 37.3 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def percent(fraction: float | None, digits: int = 2) -> str:
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"
