"""How long work tells where it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# (what is being done, steps done, steps in all)
Progress = Callable[[str, int, int], None]


def silent(_label: str, _done: int, _total: int) -> None:
    """The progress of nobody watching."""


def tracked(items: Iterable[Item], label: str, total: int, progress: Progress) -> Iterator[Item]:
    """``items``, telling ``progress`` of every one that has been dealt with."""
    progress(label, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(label, done, total)
