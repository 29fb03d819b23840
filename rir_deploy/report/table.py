"""A table of the report as plain records; the template turns it into HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Cell:
    """``note`` is a second, smaller line; ``title`` shows on hovering (a full hash); ``tone`` colours the text."""

    text: str
    note: str = ""
    title: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """``numeric`` aligns to the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """The first cell of a row names it. ``name`` is unique in the page.

    A ``wide`` table becomes one card a row where the screen is narrow; a ``folded`` one is shown when it is asked for.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    wide: bool = False
    folded: bool = False


def columns(*titles: str) -> tuple[Column, ...]:
    """Columns by title; one that begins with ">" is numeric."""
    return tuple(Column(title.removeprefix(">"), title.startswith(">")) for title in titles)


def facts(name: str, caption: str, rows: Iterable[tuple[str, Cell]]) -> Table:
    """A table of what is what."""
    return Table(name, caption, columns("what", "value"), tuple((Cell(key), cell) for key, cell in rows))
