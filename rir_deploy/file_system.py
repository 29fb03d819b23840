"""What the system's files can do beyond Python's own functions, and what its errors mean to a user.

Renames that never overwrite and that exchange two names are Linux's renameat2(2) and macOS's renamex_np(2). A file
system that has them not (some network file systems) gets the closest that plain renames can do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rir_deploy.errors import UsageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

# What a write raises where the disk, and not the request, is at fault.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2  # linux/fs.h
_SWAP, _EXCL = 2, 4  # macOS: sys/stdio.h
# numpy's words for a write that did not take all of an array; it passes no errno on.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
# How Rust prints the errno of an I/O error, in safetensors for one.
_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
# C++ streams (OpenVINO), protobuf (ONNX Runtime) and torch's zip writer say that a write failed, and not why.
_NATIVE = re.compile(r"iostream error|Protobuf serialization failed|inline_container\.cc.*unexpected pos")


def exchange(one: Path, other: Path) -> bool:
    """Exchange what two names stand for, in one step; False where the file system cannot."""
    return _rename_with(one, other, _EXCHANGE, _SWAP)


def rename_new(source: Path, target: Path) -> None:
    """Rename, and never over what is there.

    Raises:
        FileExistsError: ``target`` is there.
    """
    if _rename_with(source, target, _NOREPLACE, _EXCL):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _rename_with(source: Path, target: Path, linux: int, mac: int) -> bool:
    """Whether the system took the rename with that flag; an error of the files themselves is raised."""
    libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None
    names = os.fsencode(source), os.fsencode(target)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], linux)
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, mac)
    else:
        return False
    code = ctypes.get_errno()
    if failed and code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    return not failed


def try_lock(descriptor: int) -> bool | None:
    """Take the lock of an open file or folder, which ends with the process.

    False where another one holds it, None where the system or the file system has no such locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


@contextmanager
def scratch_folder(prefix: str = "rir-deploy-") -> Iterator[Path]:
    """A temporary folder, gone with the block.

    Raises:
        UsageError: the disk is full, naming the folder for temporary files and how another is chosen.
    """
    way_out = "make room, or name another folder for them by TMPDIR"
    with writing_to("temporary files", way_out), tempfile.TemporaryDirectory(prefix=prefix) as name:
        try:
            yield Path(name)
        except UsageError as error:  # of what was to be written in it, under a name that the user has not given
            reason = full_disk(error.__cause__)
            if name not in str(error) or reason is None:
                raise
            raise UsageError(f"cannot write temporary files: {reason}; {way_out}") from error


@contextmanager
def writing_to(what: str, way_out: str = "make room, or choose another output") -> Iterator[None]:
    """A full disk, met by whatever writes in the block, becomes one sentence that names ``what`` is written.

    Raises:
        UsageError: with the way out.
    """
    try:
        yield
    except UsageError:  # one sentence already
        raise
    except Exception as error:  # each library has an exception of its own for it
        reason = full_disk(error) or full_disk(error.__cause__)
        if reason is None:
            raise
        raise UsageError(f"cannot write {what}: {reason}; {way_out}") from error


def full_disk(error: BaseException | None) -> str | None:
    """Why a write failed, in the system's words, if that is what an exception says; None for any other."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in FULL else None
    text = str(error)
    found = _RUST_ERRNO.search(text)
    if found is not None:
        return os.strerror(int(found[1])) if int(found[1]) in FULL else None
    return "the disk is full, or a limit is reached" if _SHORT_WRITE.search(text) or _NATIVE.search(text) else None


def system_error(error: OSError) -> UsageError:
    """What the system refused, as one sentence."""
    reason = full_disk(error)
    named = "" if error.filename is None else f"'{os.fsdecode(error.filename)}': "
    if reason is not None:
        return UsageError(
            f"{named}cannot write: {reason}; make room, or choose another output (TMPDIR is for temporary files)"
        )
    return UsageError(f"{named}{error.strerror or error}; check the path and its permissions")
