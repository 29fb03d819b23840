"""Source: a zip of an image folder, streamed member by member and never extracted."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from rir_deploy.artifacts import sha256_file
from rir_deploy.data.decode import MAX_FILE_BYTES, decode_image, is_image_name
from rir_deploy.data.layout import read_layout, skipped_note
from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

# zipfile bounds what one read inflates for these two only: a block of bzip2 or LZMA inflates whole.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class ZipSource:
    """Images of a zip; see `layout` for the shapes that are taken.

    Hidden members and ``__MACOSX`` are passed over.

    Raises:
        InputError: not a zip, truncated, encrypted, with a name that leaves the archive, with a member over
            the size limit, without images, or of an unclear shape.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
            infos = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(f"'{path}' is not a zip file, or is truncated ({error})") from error
        for info in infos:
            _check_member(info, self.name)
        files = [info for info in infos if not info.is_dir() and not _is_hidden(info)]
        images = [info for info in files if is_image_name(info.filename)]
        self.note = skipped_note((info.filename for info in files if not is_image_name(info.filename)), self.name)
        layout = read_layout([info.filename for info in images], self.name)
        self._members = [images[index] for index in layout.order]
        self.classes = layout.classes
        self.labels = layout.labels
        self.within = (layout.within, path.stem)

    def __len__(self) -> int:
        return len(self._members)

    def describe(self, index: int) -> str:
        """The zip and the name of the member."""
        return f"{self.name}:{self._members[index].filename}"

    def image(self, index: int) -> Uint8Array:
        """(H, W, 1 or 3) uint8."""
        return decode_image(self._read(self._members[index]), self.describe(index))

    def fingerprint(self) -> str:
        """Hex sha256 of the zip file."""
        return sha256_file(self._path)

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(info) as member:
                # A size is given, since a read without one inflates more than the header promises.
                return member.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise InputError(
                f"cannot read '{info.filename}' in '{self.name}': the zip is malformed ({error})"
            ) from error


def _check_member(info: zipfile.ZipInfo, source: str) -> None:
    # orig_filename: zipfile cuts names at a NUL and translates separators.
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or "\\" in name or name.startswith("/") or ".." in parts or name[1:2] == ":":
        raise InputError(f"'{source}' is refused: its member {name!r} would leave the archive's folder")
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"'{source}' is encrypted at '{name}'; give a zip without a password")
    if info.compress_type not in _METHODS:
        raise InputError(f"'{source}' compresses '{name}' by an unusual method; zip it with store or deflate")
    if is_image_name(info.filename) and info.file_size > MAX_FILE_BYTES:
        raise InputError(
            f"'{source}' is refused: its member '{name}' unpacks to {info.file_size} bytes, "
            f"over the limit of {MAX_FILE_BYTES}"
        )


def _is_hidden(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.split("/")
    return any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"
