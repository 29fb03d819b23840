"""PyTorch's own files, read as data: no code in them runs, and nothing in them becomes larger than the file."""

from __future__ import annotations

import mmap
import re
import textwrap
import warnings
import zipfile
from pathlib import Path

import torch

from rir_deploy.errors import InputError

_ZIP_MAGIC = b"PK\x03\x04"
# The only callable that torch lets a pickle call with a size of its own choice, and that then fills the memory.
# A pickle names it on a line of its own, as torch reads no other way of naming it; elsewhere it is but a word.
_SIZED = b"\nbytearray\n"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# How torch's releases word what they refuse; the group is the dotted name.
_REFUSED = (
    re.compile(r"GLOBAL ([\w.]+)"),
    re.compile(r"[Uu]nsupported (?:class|type|function) ([\w.]+)"),
)
# Characters of torch's own words, up to the end of one.
_MOST_SAID = 300
_WAY_OUT = "where you trust it, load it and save model.state_dict() alone"


def read_torch(path: Path) -> object:
    """What ``torch.save`` wrote, of which only plain tensors and containers of them are taken.

    Raises:
        InputError: corrupt, a TorchScript program, compressed, or an object of any other class, which is named.
    """
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it may not read: it says so where it does not
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken pickle can raise almost anything
        raise InputError(
            f"'{path}' is corrupt or holds more than plain tensors ({_reason(error)}); {_WAY_OUT}"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse what would grow when it is read, before it is read."""
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"'{path}' is corrupt: it is empty; copy it again")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_SIZED) >= 0:
            raise InputError(f"'{path}' holds more than plain tensors (a bytearray); {_WAY_OUT}")
        zipped = content[: len(_ZIP_MAGIC)] == _ZIP_MAGIC
    if zipped:
        _check_members(path, size)


def _check_members(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"'{path}' is corrupt: its zip cannot be read ({error}); copy it again") from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise InputError(f"'{path}' is a TorchScript program, which holds code; {_WAY_OUT}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"'{path}' compresses its member '{member.filename}', which torch.save never does; save it again"
            )
    unpacked = sum(member.file_size for member in members)
    if unpacked > size:
        raise InputError(f"the members of '{path}' claim {unpacked} bytes, and it has {size}; save it again")


def _reason(error: Exception) -> str:
    """The object that torch refused, without its advice to load the file unsafely and its terminal codes."""
    text = _ESCAPES.sub("", str(error))
    for pattern in _REFUSED:
        if found := pattern.search(text):
            return f"an object of {found[1]}"
    told = text.partition("WeightsUnpickler error:")[2] or text
    lines = [line.strip() for line in told.splitlines() if line.strip() and "weights_only" not in line]
    return textwrap.shorten(lines[0], _MOST_SAID, placeholder=" ...") if lines else type(error).__name__
