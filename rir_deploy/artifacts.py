"""Files as records: hashes, safe writing, and the provenance that an ONNX file carries in its own metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rir_deploy.claim import claimed
from rir_deploy.errors import InputError, UsageError
from rir_deploy.staging import follow_umask, put_new, remove_stale_data, replace_with_folder, staged
from rir_deploy.strict_data import parse_json

METADATA_KEY = "rir_deploy.provenance"


def sha256_json(data: object) -> str:
    """Hex sha256 of plain data, by its canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Provenance:
    """Where an artifact comes from.

    ``parents`` maps a role ("checkpoint", "onnx") to the sha256 of the file that played it; ``recipe`` is the
    preprocessing recipe as plain data (None where no recipe was involved); ``stages`` lists what was done, in order;
    ``top1`` is the accuracy that the checkpoint records, a fraction (None where it records none); ``weights`` is the
    key of its weights where it holds several sets of them (None elsewhere, and then not written).
    """

    stages: tuple[str, ...] = ()
    precision: str = "fp32"
    parents: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    tool: str = ""
    top1: float | None = None
    weights: str | None = None

    def to_json(self) -> str:
        """Canonical JSON, so that equal provenance gives equal bytes."""
        data = {
            "stages": list(self.stages),
            "precision": self.precision,
            "parents": self.parents,
            "recipe": self.recipe,
            "tool": self.tool,
            "top1": self.top1,
        }
        return json.dumps(data if self.weights is None else {**data, "weights": self.weights}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Provenance:
        """Read what `to_json` wrote; raises InputError on anything else."""
        try:
            data = parse_json(text, unique=False)
            return Provenance(
                stages=tuple(str(stage) for stage in data["stages"]),
                precision=str(data["precision"]),
                parents={str(k): str(v) for k, v in data["parents"].items()},
                recipe=data["recipe"] if data["recipe"] is None else dict(data["recipe"]),
                tool=str(data["tool"]),
                top1=as_share(data.get("top1")),
                weights=None if data.get("weights") is None else str(data["weights"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the provenance record in the metadata is malformed ({error!r}); export the model again"
            ) from error


def as_share(value: object) -> float | None:
    """A fraction from plain data, 0 to 1, or None; ValueError on anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{value!r} is no share, 0 to 1")
    return float(value)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse an output that exists (unless ``force``) or whose folder cannot be written, before any work is done.

    Raises:
        UsageError: with the way out.
    """
    try:
        if path.exists() and not force:
            raise UsageError(f"'{path}' exists already; pass --force to replace it or choose another output")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
    except OSError as error:  # a name too long, a folder that cannot be searched
        raise UsageError(f"cannot write '{path}': {error.strerror}; choose another output") from error
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write '{path}': '{folder}' is not a folder that can be written; choose another output"
        )


def check_output_file(path: Path, *, force: bool) -> None:
    """The same for a file: a folder of that name is not replaced, whatever ``force`` says."""
    check_output(path, force=force)
    if path.is_dir():
        raise UsageError(f"cannot write '{path}': it is a folder; name a file")
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot write '{path}': it is a device or a pipe, which cannot be replaced; name a file")


@contextmanager
def atomic_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it into place on success, remove it on any error.

    What ``path`` held is there until the new folder is, whatever interrupts: the two are exchanged in one step. A link
    is followed: what it points to is replaced, and the link stays.

    Raises:
        UsageError: ``path`` exists and ``force`` is not given, cannot be written, or is being written by another
            process.
    """
    check_output(path, force=force)
    with claimed(path), staged(path) as (folder, target):
        yield folder
        follow_umask(folder)
        if force and os.path.lexists(target):
            replace_with_folder(folder, target)
        else:
            put_new(folder, target, path)


@contextmanager
def atomic_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place on success, remove it on any error.

    Files written beside the temporary one (external tensor data) are put beside ``path`` first, and the file itself
    last, so that it never stands beside another's data; data of a file that was replaced is removed after. A link is
    followed, and a file that is replaced passes its permissions on; a new one follows the umask.

    Raises:
        UsageError: ``path`` exists and ``force`` is not given, or cannot be written.
    """
    check_output_file(path, force=force)
    with staged(path) as (folder, target):
        yield folder / path.name
        follow_umask(folder, path.name, target)
        for name in set(os.listdir(folder)) - {path.name}:
            os.replace(folder / name, target.parent / name)
        if force:
            os.replace(folder / path.name, target)
        else:
            put_new(folder / path.name, target, path)
        remove_stale_data(target)
