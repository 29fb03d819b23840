"""A bundle as bytes: a zip file with one form only.

The index comes first, then its members in their order, each stored as it is, with no date, owner or extra field; the
comment at the end is the sha256 of the index. So the index says what every byte of the file has to be, and the reader
trusts no header: it compares. What zip files can hold besides (compression, encryption, links, two members of one name,
data between members) has no place in that form. Any unzip program opens the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rir_deploy.bundle.index import INDEX_NAME, Index, Member
from rir_deploy.errors import InputError, UsageError

# What the 32-bit fields of a zip can say.
MAX_BYTES = 2**32 - 2
MAX_INDEX_BYTES = 1 << 20
_CHUNK = 1 << 20

# PKWARE's APPNOTE.TXT, 4.3.7, 4.3.12 and 4.3.16.
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION, _UNIX, _FIRST_DAY = 10, 3 << 8, (1 << 5) | 1  # 1 January 1980
_FILE_MODE = 0o100644 << 16


@dataclass(frozen=True)
class _Entry:
    """A stored member: what its two headers say."""

    name: str
    size: int
    crc: int
    offset: int

    def local(self) -> bytes:
        sizes = (self.crc, self.size, self.size, len(self.name), 0)
        return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _FIRST_DAY, *sizes) + self.name.encode("ascii")

    def central(self) -> bytes:
        sizes = (self.crc, self.size, self.size, len(self.name), 0, 0)
        head = (b"PK\1\2", _UNIX | _VERSION, _VERSION, 0, 0, 0, _FIRST_DAY)
        return _CENTRAL.pack(*head, *sizes, 0, 0, _FILE_MODE, self.offset) + self.name.encode("ascii")


def pack(folder: Path, index: Index, output: Path) -> None:
    """Write a bundle of the members of ``index``, which lie in ``folder``: equal content gives equal bytes.

    Raises:
        InputError: they do not fit into one bundle.
    """
    text = index.to_json().encode("ascii")
    members = (_index_member(text), *index.members)
    size = _size_of(members)
    if size > MAX_BYTES or len(text) > MAX_INDEX_BYTES:
        raise InputError(
            f"these members make a bundle of {size} bytes, over the limit of {MAX_BYTES}; name fewer engines"
        )
    (folder / INDEX_NAME).write_bytes(text)
    entries: list[_Entry] = []
    with open(output, "wb") as file:
        for member in members:
            path = folder / member.name
            entries.append(_Entry(member.name, member.size_bytes, _crc32(path), file.tell()))
            file.write(entries[-1].local())
            with open(path, "rb") as source:
                shutil.copyfileobj(source, file, _CHUNK)
        file.write(_end(entries, text))


def unpack(path: Path, folder: Path) -> Index:
    """Write the members of a bundle into ``folder`` and return its index, once every byte of the file is checked.

    Raises:
        UsageError: there is no such file, or no room in ``folder``.
        InputError: any byte is not as `pack` writes it. What is in ``folder`` then is not to be used.
    """
    if not path.is_file():
        raise UsageError(f"there is no bundle '{path}'; make one with bundle")
    try:
        with open(path, "rb") as file:
            return _unpack(file, folder)
    except InputError as error:
        raise InputError(
            f"the bundle '{path}' is refused: {error}; copy it again, or make it again with bundle"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot unpack the bundle '{path}' into '{folder.parent}': {error.strerror}; TMPDIR names another place"
        ) from error


def _unpack(file: BinaryIO, folder: Path) -> Index:
    size = os.fstat(file.fileno()).st_size
    text = _read_index(file)
    index = Index.from_json(text.decode("ascii"))
    members = (_index_member(text), *index.members)
    expected = _size_of(members)
    if size != expected:
        raise InputError(f"it has {size} bytes, and its index describes {expected}")
    file.seek(0)
    entries: list[_Entry] = []
    for member in members:
        offset = file.tell()
        header = file.read(_LOCAL.size + len(member.name))
        entries.append(_Entry(member.name, member.size_bytes, _copy(file, member, folder), offset))
        if header != entries[-1].local():
            raise InputError(f"the header of its member '{member.name}' is not what bundle writes")
    if file.read() != _end(entries, text):
        raise InputError("the list of members at its end is not what bundle writes")
    return index


def _read_index(file: BinaryIO) -> bytes:
    """The first member, found with nothing known: its size is what its header says, up to a limit."""
    header = file.read(_LOCAL.size + len(INDEX_NAME))
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4") or not header.endswith(INDEX_NAME.encode()):
        raise InputError(f"it does not begin with {INDEX_NAME}, as a bundle does")
    size = _LOCAL.unpack_from(header)[7]
    if size > MAX_INDEX_BYTES:
        raise InputError(f"its index claims {size} bytes, over the limit of {MAX_INDEX_BYTES}")
    text = file.read(size)
    if len(text) != size or not text.isascii():
        raise InputError("its index is truncated or is not text")
    return text


def _index_member(text: bytes) -> Member:
    return Member(INDEX_NAME, len(text), hashlib.sha256(text).hexdigest())


def _copy(file: BinaryIO, member: Member, folder: Path) -> int:
    """Write a member out and return its CRC-32; what is hashed is what is written."""
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, crc, left = hashlib.sha256(), 0, member.size_bytes
    with open(target, "xb") as output:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise InputError(f"its member '{member.name}' is truncated")
            digest.update(chunk)
            crc = zlib.crc32(chunk, crc)
            output.write(chunk)
            left -= len(chunk)
    if digest.hexdigest() != member.sha256:
        raise InputError(f"its member '{member.name}' is not the file that its index vouches for (sha256 differs)")
    return crc


def _size_of(members: Sequence[Member]) -> int:
    """Bytes of the whole file."""
    names = sum(len(member.name) for member in members)
    headers = len(members) * (_LOCAL.size + _CENTRAL.size) + 2 * names
    return headers + sum(member.size_bytes for member in members) + _END.size + hashlib.sha256().digest_size * 2


def _end(entries: Sequence[_Entry], text: bytes) -> bytes:
    central = b"".join(entry.central() for entry in entries)
    start = entries[-1].offset + len(entries[-1].local()) + entries[-1].size
    comment = hashlib.sha256(text).hexdigest().encode()
    count = len(entries)
    return central + _END.pack(b"PK\5\6", 0, 0, count, count, len(central), start, len(comment)) + comment


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
