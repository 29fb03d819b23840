"""Source: a folder of images, with one folder a class or without labels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rir_deploy.data.decode import MAX_FILE_BYTES, decode_image, is_image_name
from rir_deploy.data.layout import read_layout, skipped_note
from rir_deploy.data.preprocess import Uint8Array
from rir_deploy.errors import InputError

_MAX_DEPTH = 6


class FolderSource:
    """Images of a folder, read one by one when asked for. See `layout` for the shapes that are taken.

    Hidden files and folders are passed over; links are followed.

    Raises:
        InputError: no images, an unclear shape, or a folder that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root
        names, skipped = _file_names(root)
        self.note = skipped_note(skipped, self.name)
        layout = read_layout(names, self.name)
        self._names = [names[index] for index in layout.order]
        self.classes = layout.classes
        self.labels = layout.labels
        self.within = (layout.within, root.absolute().name)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, index: int) -> str:
        """The path of an image."""
        return str(self._root / self._names[index])

    def image(self, index: int) -> Uint8Array:
        """(H, W, 1 or 3) uint8."""
        return decode_image(self._read(index), self.describe(index))

    def fingerprint(self) -> str:
        """Hex sha256 of the sorted relative names and the bytes."""
        digest = hashlib.sha256()
        for index, name in enumerate(self._names):
            data = self._read(index)
            digest.update(os.fsencode(name) + b"\0" + len(data).to_bytes(8, "little"))
            digest.update(data)
        return digest.hexdigest()

    def _read(self, index: int) -> bytes:
        path = self._root / self._names[index]
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read '{path}': {error.strerror}") from error
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"'{path}' is over the limit of {MAX_FILE_BYTES} bytes; scale it down first")
        return data


def _file_names(root: Path) -> tuple[list[str], list[str]]:
    """Relative names of the images and of all other files, hidden ones left out."""

    def fail(error: OSError) -> None:
        raise InputError(f"cannot read the folder '{error.filename}': {error.strerror}") from error

    names: list[str] = []
    others: list[str] = []
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        relative = Path(folder).relative_to(root)
        # A link to a folder above would go round for ever.
        deep = len(relative.parts) >= _MAX_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                (names if is_image_name(name) else others).append((relative / name).as_posix())
    return names, others
