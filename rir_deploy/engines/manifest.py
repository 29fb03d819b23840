"""The record beside every engine. Engines run native code, so one is loaded only if its manifest vouches for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines.base import TensorSpec
from rir_deploy.errors import InputError

MANIFEST_NAME = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileRecord:
    """A file in the engine's folder: its name there, sha256 and size in bytes."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an engine is and where it comes from.

    ``graph`` is the ONNX that it was built from, kept beside it; ``extra`` are further files the engine consists of;
    ``ranges`` is the table the graph was made with, where there was one.
    """

    backend: str
    backend_version: str
    precision: str
    engine: FileRecord
    graph: FileRecord
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    parents: dict[str, str]
    recipe: dict[str, Any] | None
    batch: tuple[int, int, int]
    extra: tuple[FileRecord, ...] = ()
    ranges: FileRecord | None = None
    targets: tuple[str, ...] = ()
    realized: dict[str, Any] = field(default_factory=dict)
    host: dict[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    tool: str = ""
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        """What the engine takes on disk, without the graph it was built from."""
        return self.engine.size_bytes + sum(record.size_bytes for record in self.extra)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def record_file(path: Path) -> FileRecord:
    return FileRecord(path.name, sha256_file(path), path.stat().st_size)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an engine folder, without looking at the engine.

    Raises:
        InputError: there is none, or it is malformed or of a format this version does not know.
    """
    path = folder / MANIFEST_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"'{folder}' is not an engine: it has no {MANIFEST_NAME}; build one with build-engine"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON; {_rebuild({})}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a manifest of format {FORMAT}; {_rebuild({})}")
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"'{path}' is malformed ({error!r}); {_rebuild(data)}") from error


def check_engine(folder: Path) -> Manifest:
    """Read a manifest and check that the files beside it are the ones it vouches for.

    Raises:
        InputError: with the command that rebuilds the engine.
    """
    manifest = read_manifest(folder)
    for record in (manifest.engine, manifest.graph, *manifest.extra, *([manifest.ranges] if manifest.ranges else [])):
        path = folder / record.name
        if Path(record.name).name != record.name or path.is_symlink() or not path.is_file():
            raise InputError(f"'{folder}' has no file '{record.name}', which its manifest names; {_hint(manifest)}")
        if sha256_file(path) != record.sha256:
            raise InputError(
                f"'{path}' is not the file that its manifest vouches for (sha256 differs); {_hint(manifest)}"
            )
    return manifest


def _hint(manifest: Manifest) -> str:
    return _rebuild({"command": manifest.command})


def _rebuild(data: dict[str, Any]) -> str:
    command = data.get("command")
    return f"rebuild it with: {command}" if command and isinstance(command, str) else "rebuild it with build-engine"


def _parse(data: dict[str, Any]) -> Manifest:
    low, opt, high = (int(size) for size in data["batch"])
    return Manifest(
        backend=_text(data, "backend"),
        backend_version=_text(data, "backend_version"),
        precision=_text(data, "precision"),
        engine=_file(data["engine"]),
        graph=_file(data["graph"]),
        input=_tensor(data["input"]),
        outputs=tuple(_tensor(item) for item in data["outputs"]),
        parents={str(key): str(value) for key, value in dict(data["parents"]).items()},
        recipe=None if data["recipe"] is None else dict(data["recipe"]),
        batch=(low, opt, high),
        extra=tuple(_file(item) for item in data["extra"]),
        ranges=None if data["ranges"] is None else _file(data["ranges"]),
        targets=tuple(str(target) for target in data["targets"]),
        realized=dict(data["realized"]),
        host={str(key): str(value) for key, value in dict(data["host"]).items()},
        command=_text(data, "command"),
        created=_text(data, "created"),
        tool=_text(data, "tool"),
    )


def _text(data: dict[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


def _file(data: dict[str, Any]) -> FileRecord:
    return FileRecord(_text(data, "name"), _text(data, "sha256"), int(data["size_bytes"]))


def _tensor(data: dict[str, Any]) -> TensorSpec:
    shape = tuple(None if size is None else int(size) for size in data["shape"])
    return TensorSpec(_text(data, "name"), _text(data, "dtype"), shape)
