"""Figures and names as words: one way to write each, so that a table, a plot and the summary agree."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

from rir_deploy.report.console import percent, size
from rir_deploy.report.reader import clean

__all__ = [
    "count",
    "error",
    "file_name",
    "ms",
    "number",
    "percent",
    "plural",
    "points",
    "setting",
    "short_hash",
    "short_names",
    "shorten",
    "size",
    "words",
]

NONE = "–"
# Deeper than this, plain data is no longer for people.
_DEPTH = 3


def count(value: int) -> str:
    return f"{value:,}"


def plural(value: int, noun: str) -> str:
    """1 engine, 2 engines."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def number(value: float | None, digits: int) -> str:
    """Fixed digits, and never a negative zero."""
    return NONE if value is None else f"{round(value, digits) + 0.0:,.{digits}f}"


def ms(value: float | None) -> str:
    return number(value, 3)


def points(value: float | None) -> str:
    return number(value, 2)


def error(value: float | None) -> str:
    """An error of an output; None is one that is not finite."""
    return "not finite" if value is None else "0" if value == 0 else f"{value:.2e}"


def short_hash(digest: str) -> str:
    return digest[:12]


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` letters wide; the middle goes, since names differ at their ends."""
    if _width(text) <= limit:
        return text
    head, tail = "", ""
    for first, last in zip(text, reversed(text), strict=True):
        if _width(head + first + tail) >= limit:
            break
        head += first
        if _width(head + last + tail) >= limit:
            break
        tail = last + tail
    return f"{head}…{tail}"


def _width(text: str) -> int:
    """In letters of common width."""
    return sum(2 if char in "MW@%" or unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def short_names(paths: list[str]) -> dict[str, str]:
    """The last part of every path, or all of it where two have the same."""
    distinct = list(dict.fromkeys(paths))
    last = [PurePosixPath(path.replace("\\", "/")).name or path for path in distinct]
    return {path: name if last.count(name) == 1 else path for path, name in zip(distinct, last, strict=True)}


def file_name(path: str) -> str:
    """The last part of a path from the root; anything else as it is."""
    return PurePosixPath(path).name if path.startswith("/") else path


def setting(key: str) -> str:
    """A key as words with its unit: warmup_ms is warmup (ms)."""
    stem, _, unit = key.rpartition("_")
    words_of = stem if stem and unit in ("ms", "s") else key
    return words_of.replace("_", " ") + (f" ({unit})" if words_of == stem else "")


def words(value: object, depth: int = _DEPTH) -> str:
    """Plain JSON data in one line: lists with commas, objects as key value pairs."""
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        pairs = (f"{clean(str(key)).replace('_', ' ')} {words(item, depth - 1)}" for key, item in value.items())
        return ", ".join(pairs) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(words(item, depth - 1) for item in value) or NONE
    if isinstance(value, float):
        return f"{value:g}"
    return NONE if value is None else clean(value if isinstance(value, str) else json.dumps(value, default=str))
