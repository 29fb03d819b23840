"""Bundles of a few kilobytes, and forged ones: written with Python's zipfile, so not by the code under test.

A forger who knows the format gets every hash right; what is wrong is the content.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rir_deploy.bundle import Bounds, Golden, Index, Item, Member, pack
from rir_deploy.bundle.golden import IMAGES, OUTPUTS, write_array

RECIPE = {
    "name": "tiny",
    "classes": ["a", "b"],
    "data": {},
    "preprocess": {"size": [2, 2], "mode": "L", "mean": [0.5], "std": [0.5], "resize": "none"},
    "calibration": {"samples": 1, "seed": 0, "percentile": 99.99, "method": "minmax"},
    "model": {},
    "train": {},
}
INDEX = "index.json"
FILE_MODE = 0o100644 << 16


def tiny_bundle(folder: Path) -> Path:
    """A bundle with a graph (of arbitrary bytes), an engine and golden arrays, packed into ``folder``/tiny.zip."""
    source = folder / "source"
    files = {
        "graphs/fp32.onnx": bytes(range(200)),
        "engines/any-fp32/manifest.json": b"{}",
        "engines/any-fp32/engine.bin": b"native code" * 9,
    }
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    write_array(source / "golden/images.npy", np.arange(8).reshape(2, 2, 2, 1), IMAGES)
    write_array(source / "golden/fp32.npy", np.array([[1.0, 2.0], [3.0, 4.0]]), OUTPUTS)
    paths = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    members = tuple(member(name, paths[name].read_bytes()) for name in sorted(paths))
    items = (Item("fp32", "fp32", ran_on="somewhere"), Item("any-fp32", "fp32", backend="any", reason="no GPU"))
    golden = Golden("tiny", "0" * 64, 0, (0, 1))
    index = Index("rir-deploy 0", RECIPE, golden, items, {"fp32": Bounds(0.9, 0.0, 0.1)}, members)
    pack(source, index, folder / "tiny.zip")
    return folder / "tiny.zip"


def member(name: str, data: bytes) -> Member:
    return Member(name, len(data), hashlib.sha256(data).hexdigest())


@dataclass
class Forgery:
    """The parts of a bundle, to be changed and written again with every hash and size right."""

    files: dict[str, bytes]
    index: dict[str, Any]
    extra: list[tuple[str, bytes]] = field(default_factory=list)
    text: bytes | None = None
    changes: dict[str, dict[str, object]] = field(default_factory=dict)

    @staticmethod
    def of(path: Path) -> Forgery:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if name != INDEX}
            return Forgery(files, json.loads(archive.read(INDEX)))

    def rename(self, old: str, new: str) -> None:
        self.files = {new if name == old else name: data for name, data in self.files.items()}

    def write(self, path: Path) -> Path:
        """The index lists the files as they are now; ``changes`` are attributes of their entries in the zip."""
        listed = [
            {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            for name, data in sorted(self.files.items())
        ]
        self.index.setdefault("members", listed)
        text = self.text or (json.dumps(self.index, indent=1, sort_keys=True) + "\n").encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in [(INDEX, text), *sorted(self.files.items()), *self.extra]:
                archive.writestr(self._entry(name), data)
            archive.comment = hashlib.sha256(text).hexdigest().encode()
        return path

    def relist(self) -> Forgery:
        self.index.pop("members", None)
        return self

    def _entry(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.create_system, info.create_version, info.extract_version = 3, 10, 10
        info.external_attr, info.compress_type = FILE_MODE, zipfile.ZIP_STORED
        for key, value in self.changes.get(name, {}).items():
            setattr(info, key, value)
        return info
