"""Mutations of zip archives: members, names and methods that zip files can have, and arrays in them."""

from __future__ import annotations

import io
import random
import zipfile

import numpy as np
from numpy.typing import NDArray

from tests.fuzz.noise import mutate_bytes

NAMES = ("../evil.png", "/evil.png", "..\\evil.png", "C:/evil.png", "0/\0.png", "a" * 5000 + ".png", "0", "0/000.png/x")
_LINK = 0o120777 << 16


def mutate_archive(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    """One change of a zip: its bytes, or a member in the place of another."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, data = members[at]
    method, attributes = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), 0o100644 << 16
    change = rng.choice(("name", "content", "bomb", "link", "twice", "gone", "method", "many"))
    if change == "name":
        members[at] = (rng.choice(NAMES), data)
    elif change == "content" and data:
        members[at] = (name, mutate_bytes(rng, data)[1])
    elif change == "bomb":
        members[at], method = (name, bytes(70_000_000)), zipfile.ZIP_DEFLATED
    elif change == "link":
        members[at], attributes = (name, b"/etc/passwd"), _LINK
    elif change == "twice":
        members.append((name, data[::-1]))
    elif change == "gone":
        del members[at]
    elif change == "method":
        method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    else:
        members += [(f"{place}/x.png", b"") for place in range(2000)]
    return f"zip: {change}", _zipped(members, method, attributes)


def mutate_npz(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    """One change of the arrays of an .npz, of their headers, or of the zip that they lie in."""
    if rng.random() < 0.4:
        return mutate_archive(rng, whole)
    with np.load(io.BytesIO(whole)) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    change = rng.choice(("type", "shape", "labels", "header", "pickled"))
    if change == "header":
        return "npz: header", _with_header(rng, images, labels)
    if change == "type":
        images = images.astype(rng.choice((np.float32, np.int8, np.uint16, np.complex64, "S1", bool)))
    elif change == "shape":
        shapes = (images[0], images[:0], images[None], images[..., None], images[:, :7], np.repeat(images, 9, axis=2))
        images = rng.choice(shapes)
    elif change == "labels":
        bad = (labels - 1, labels + 2**40, labels[:-1], labels.astype(float), labels[:, None], labels * 0)
        labels = rng.choice(bad)
    else:
        labels = np.array([print] * len(labels), dtype=object)
    file = io.BytesIO()
    np.savez(file, images=images, labels=labels)
    return f"npz: {change}", file.getvalue()


def _with_header(rng: random.Random, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """An array whose header says what its bytes are not."""
    shape = rng.choice(("(12, 8)", "(-1, 8, 8)", "(10**9, 8, 8)", "(12, 8, 8, 10**12)", "12", "()", "(True, 8, 8)"))
    dtype = rng.choice(("|u1", "|u1", "<f8", "|O", "[('a', '|u1')]", "|V0", "|u99"))
    text = f"{{'descr': '{dtype}', 'fortran_order': {rng.choice(('False', 'True', '1'))}, 'shape': {shape}, }}"
    if rng.random() < 0.2:
        text = rng.choice(("(" * 5000, "__import__('os').system('touch executed')", "{}", "\0" * 100))
    header = text.encode() + b"\n"
    array = b"\x93NUMPY" + rng.choice((b"\1\0", b"\2\0", b"\3\0", b"\x63\0"))
    array += len(header).to_bytes(2 if array[6] == 1 else 4, "little") + header + images.tobytes()
    file = io.BytesIO()
    np.save(file, labels)
    return _zipped([("images.npy", array), ("labels.npy", file.getvalue())], zipfile.ZIP_STORED, 0)


def _zipped(members: list[tuple[str, bytes]], method: int, attributes: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, attributes
            if any(member.filename == name for member in archive.infolist()):
                archive.NameToInfo.pop(name, None)  # or zipfile warns of the second
            archive.writestr(info, data)
    return file.getvalue()
