"""One process writes an output at a time: whoever comes second is refused, before any work is done.

A file ``.NAME.lock`` beside the output is locked by the system for as long as its maker lives, and removed with the
claim. What a killed process leaves of it stands in no one's way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rir_deploy.errors import UsageError
from rir_deploy.file_system import try_lock
from rir_deploy.staging import remove_leftovers

_MAX_OWNER = 100
# What stands for a whole folder that is added to: the folder above it need not be writable.
_FOLDER = "output"
FOLDER_LOCK = f".{_FOLDER}.lock"


def claimed(path: Path) -> AbstractContextManager[None]:
    """Hold ``path``, a file or folder to write, for this thread. A claim inside a claim of the same thread is the same.

    What killed processes left of the output is cleaned up first. Where the file system has no locks, all are let in.

    Raises:
        UsageError: another process or thread holds it, or nothing can be written there.
    """
    return _claimed(Path(os.path.realpath(path)), path)


def claimed_folder(path: Path) -> AbstractContextManager[None]:
    """The same for a folder that is added to, not replaced: a run, a training. Its claim lies in it."""
    return _claimed(Path(os.path.realpath(path), _FOLDER), path)


@contextmanager
def _claimed(target: Path, shown: Path) -> Iterator[None]:
    lock = target.with_name(f".{target.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(_parents(target.parent))
            descriptor, owner = _take(lock)
        except OSError as error:
            raise UsageError(f"cannot write '{shown}': {error.strerror}; choose another output") from error
        if descriptor is not None:
            stack.callback(_release, lock, descriptor)
            remove_leftovers(target.parent, target.name)
        elif owner != _me():
            raise UsageError(
                f"'{shown}' is being written by {_described(owner)}; wait until it is done, or choose another output"
            )
        yield


def _me() -> str:
    return f"{os.getpid()} {threading.get_ident()}"


def _described(owner: str) -> str:
    process = owner.partition(" ")[0]
    if process == str(os.getpid()):
        return "another thread of this process"
    return f"another process ({process if process.isdecimal() else 'which has just started'})"


def _take(path: Path) -> tuple[int | None, str]:
    """The descriptor of the locked file, or None and who holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if try_lock(descriptor) is False:
            with os.fdopen(descriptor, "rb") as held:
                return None, held.read(_MAX_OWNER).decode(errors="replace")
        if not _is_named(descriptor, path):  # its owner removed it between the opening and the lock
            os.close(descriptor)
            continue
        try:
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, _me().encode())
        except BaseException:
            _release(path, descriptor)
            raise
        return descriptor, ""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    """The name goes first: whoever opened the file before finds that it is no longer the one of that name."""
    path.unlink(missing_ok=True)
    os.close(descriptor)


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make a folder with those above it; those that are still empty afterwards go again."""
    made = []
    while not folder.exists():
        made.append(folder)
        folder = folder.parent
    try:
        for one in reversed(made):
            one.mkdir(exist_ok=True)
        yield
    finally:
        for one in made:
            try:
                one.rmdir()
            except OSError:  # something is in it
                break
