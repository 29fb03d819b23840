"""One graph or engine out of a bundle, where something else is compared with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rir_deploy.bundle import open_bundle
from rir_deploy.errors import UsageError
from rir_deploy.pipeline.sides import kind_of


@contextmanager
def unpacked(path: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """What can be opened as a side, and what it is called: ``path`` itself, or of a bundle the one that ``names`` says.

    Raises:
        UsageError: there is no such file or name; several are named, or none and the bundle holds several.
        InputError: the bundle is not as it was written.
    """
    if kind_of(path) != "bundle":
        yield path, str(path)
        return
    with open_bundle(path) as bundle:
        items = bundle.choose(names)
        if len(items) > 1:
            held = ", ".join(item.name for item in items)
            raise UsageError(f"'{path}' stands for one graph or engine here; choose with --engine: {held}")
        yield bundle.file(items[0]), f"{path}/{items[0].name}"
