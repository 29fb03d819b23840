"""Relative file names → classes and labels, the same for a folder and for a zip of one.

1. ``class/file``: one class a folder; sorted folder names are the class numbers.
2. ``file``: no labels.
3. Folders that everything lies in (``cifar10/class/file``, ``photos/file``) are looked through. The last of them may be
   the only class that there is, which shows where the names of the classes are known.
Any other shape is refused, since a guess would shift class numbers silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from rir_deploy.data.decode import EXTENSIONS
from rir_deploy.errors import InputError


@dataclass(frozen=True)
class Layout:
    """The images of a tree, sorted by class and name.

    Attributes:
        order: positions in the list of names that was given, one an image.
        classes: sorted class names, or None for a flat tree.
        labels: (N,) int64, or None for a flat tree.
        within: the folder that all images of a flat tree lie in, or None.
    """

    order: tuple[int, ...]
    classes: tuple[str, ...] | None
    labels: npt.NDArray[np.int64] | None
    within: str | None = None


def read_layout(names: Sequence[str], source: str) -> Layout:
    """The layout of image files named ``names`` (relative, with ``/``).

    ``source`` stands for the tree in messages.

    Raises:
        InputError: no names, or a shape that is neither flat nor one folder a class.
    """
    if not names:
        raise InputError(
            f"'{source}' holds no images ({', '.join(EXTENSIONS)}); give one folder a class, or images only"
        )
    parts = [tuple(name.split("/")) for name in names]
    order = tuple(sorted(range(len(parts)), key=parts.__getitem__))
    top = _common_depth(parts)
    inner = [parts[index][top:] for index in order]
    depths = {len(part) for part in inner}
    if depths == {1}:
        return Layout(order, None, None, parts[0][top - 1] if top else None)
    if depths != {2}:
        raise InputError(
            f"'{source}' mixes images at several depths or nests folders inside classes; "
            "give one folder a class with images right inside, or images only"
        )
    classes = tuple(sorted({part[0] for part in inner}))
    number = {name: index for index, name in enumerate(classes)}
    return Layout(order, classes, np.array([number[part[0]] for part in inner], dtype=np.int64))


def _common_depth(parts: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders all names share."""
    depth = 0
    while len({part[depth] for part in parts}) == 1 and all(len(part) > depth + 1 for part in parts):
        depth += 1
    return depth


def skipped_note(names: Iterable[str], source: str) -> str | None:
    """What to say of files that are not read as images: how many, of which suffixes."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in names)
    if not kinds:
        return None
    total = sum(kinds.values())
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
    more = ", ..." if len(kinds) > 8 else ""
    return (
        f"{total} file{'s' if total > 1 else ''} of '{source}' {'are' if total > 1 else 'is'} not read: {listed}{more}"
    )
