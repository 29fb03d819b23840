"""Where an output lies until it is whole: a hidden folder beside it, and how it gets from there to its place.

The folder's name says whose it is: ``.NAME.xxxxxxxx.part``. Its maker holds a lock on it, so what a killed process left
is told from what another one is writing. A folder that had to be put aside for a moment, on a file system that cannot
exchange two names, is called ``.NAME.xxxxxxxx.old.part``, and is put back by whoever finds it without its successor.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rir_deploy.errors import RirDeployError, UsageError
from rir_deploy.file_system import exchange, rename_new, try_lock, writing_to

_LEFTOVER = re.compile(r"\.(?P<name>.+?)\.[0-9a-z_]+(?P<old>\.old)?\.part")
_DATA = "{name}.{digest}.data"
_DATA_DIGEST = r"[0-9a-f]{16}"


@contextmanager
def staged(path: Path) -> Iterator[tuple[Path, Path]]:
    """A new folder for what is to become ``path``, and the place it goes to: the target, where ``path`` is a link.

    Raises:
        UsageError: it cannot be made, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
        folder.mkdir()
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}; choose another output") from error
    try:
        with _held(folder), writing_to(f"'{path}'"):
            yield folder, target
    except RirDeployError as error:  # it may speak of the folder, which is gone by then
        message = str(error).replace(str(folder / path.name), str(path)).replace(str(folder), str(path))
        if message == str(error):
            raise
        raise type(error)(message) from (error.__cause__ or error)
    finally:
        _remove(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock that says that the maker of a folder lives."""
    if os.name == "nt":  # where a folder cannot be opened
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def follow_umask(folder: Path, name: str = "", target: Path | None = None) -> None:
    """Give what a library wrote the permissions that any new file has here; the file ``name`` those of the ``target``
    that it replaces, if that is there.

    The staging folder was made with all permissions that the umask leaves, so it tells them.
    """
    mode = folder.stat().st_mode & 0o777
    for file in folder.rglob("*"):
        if not file.is_symlink():
            file.chmod(mode if file.is_dir() else mode & 0o666)
    if target is not None and target.is_file():
        (folder / name).chmod(target.stat().st_mode & 0o777)


def put_new(source: Path, target: Path, path: Path) -> None:
    """Rename to a name that nothing has; UsageError where another process took it meanwhile."""
    try:
        rename_new(source, target)
    except FileExistsError as error:
        raise UsageError(f"'{path}' was written by another process meanwhile; choose another output") from error


def replace_with_folder(new: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``, which is there. The old one is then where ``new`` was, if anywhere."""
    if exchange(new, target):
        return
    old = new.with_suffix(".old.part")
    try:
        os.rename(target, old)
        os.rename(new, target)
    finally:  # also where a signal came between the two
        if not os.path.lexists(target):
            os.rename(old, target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left half-written in ``folder`` (of the output ``name``), and put back what they
    had put aside."""
    for part in folder.glob(".*.part"):
        found = _LEFTOVER.fullmatch(part.name)
        if found is None or name not in (None, found["name"]) or not _is_left(part):
            continue
        if found["old"] and not os.path.lexists(folder / found["name"]):
            os.rename(part, folder / found["name"])
        else:
            _remove(part)


def _is_left(part: Path) -> bool:
    """Whether no living process holds it."""
    try:
        descriptor = os.open(part, os.O_RDONLY)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is True
    finally:
        os.close(descriptor)


def data_name(name: str, digest: str) -> str:
    """What the weights beside the ONNX file ``name`` are called: by their content (hex), so that a new graph and its
    weights never take the place of old ones one after the other."""
    return _DATA.format(name=name, digest=digest[:16])


def data_files(target: Path) -> list[Path]:
    """Files beside ``target`` that are called as its weights are."""
    pattern = re.compile(_DATA.format(name=re.escape(target.name), digest=_DATA_DIGEST))
    try:
        return [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:  # there is no such folder, or it cannot be read
        return []


def remove_stale_data(target: Path) -> None:
    """Remove the weights of what ``target`` was before, unless a copy of that graph still names them."""
    for path in data_files(target):
        if not any(_mentions(file, path.name) for file in (target, *target.parent.glob("*.onnx"))):
            path.unlink(missing_ok=True)


def _mentions(file: Path, name: str) -> bool:
    """Whether a file has that name in it; one that cannot be read may have."""
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name.encode()) >= 0
    except ValueError:  # it is empty
        return False
    except OSError:
        return not file.is_dir()
