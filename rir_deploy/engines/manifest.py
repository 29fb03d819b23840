"""The record beside every engine. Engines run native code, so one is loaded only if its manifest vouches for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines import BACKENDS
from rir_deploy.engines.base import TensorSpec
from rir_deploy.engines.parent_graph import contradiction
from rir_deploy.errors import InputError
from rir_deploy.strict_data import parse_json

MANIFEST_NAME = "manifest.json"
FORMAT = 1
# A manifest is some kB; what is larger is none.
_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class FileRecord:
    """A file in the engine's folder: its name there, sha256 and size in bytes."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an engine is and where it comes from.

    ``precision`` is the graph's, what was asked for; ``realized`` is what the runtime says it made of it. ``graph`` is
    the ONNX that it was built from, kept beside it; ``extra`` are further files the engine consists of; ``ranges`` is
    the table the graph was made with, where there was one. ``gpu`` is the one it was built on and is tied to,
    ``targets`` are the GPUs it runs on, ``options`` the builder's beside the graph.
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
    gpu: str = ""
    options: dict[str, Any] = field(default_factory=dict)
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

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All that the manifest vouches for."""
        return (self.engine, self.graph, *self.extra, *([self.ranges] if self.ranges else []))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def check_names(specs: Sequence[TensorSpec]) -> None:
    """Refuse inputs and outputs that a manifest cannot record, before an engine is built of them.

    Raises:
        InputError: a name that is not plain text.
    """
    for spec in specs:
        try:
            _printable(spec.name)
        except TypeError as error:
            raise InputError(
                f"the name of an input or output of the model, {spec.name!r:.80}, is not plain text, as an engine's "
                "manifest needs it; rename it"
            ) from error


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
    if not path.exists():
        raise InputError(f"'{folder}' is not an engine: it has no {MANIFEST_NAME}; build one with build-engine")
    try:
        if not _is_plain_file(path, MANIFEST_NAME) or path.stat().st_size > _MAX_BYTES:
            raise ValueError("not a plain file of a manifest's size")
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON; {_rebuild({})}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a manifest of format {FORMAT}; {_rebuild({})}")
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"'{path}' is malformed ({error!r}); {_rebuild(data)}") from error


def check_engine(folder: Path, *, trust: bool = False) -> Manifest:
    """Read a manifest and check that the files beside it are the ones it vouches for, and its graphs what it says.

    ``trust`` takes the files as they are; they still have to be in the folder.

    Raises:
        InputError: with the command that rebuilds the engine.
    """
    manifest = read_manifest(folder)
    if manifest.backend not in BACKENDS:
        raise InputError(
            f"'{folder}' names the backend '{manifest.backend}', which there is not; {rebuild_hint(manifest)}"
        )
    for record in manifest.files:
        path = folder / record.name
        if not _is_plain_file(path, record.name):
            raise InputError(
                f"'{folder}' has no file {record.name!r}, which its manifest names; {rebuild_hint(manifest)}"
            )
        if not trust and sha256_file(path) != record.sha256:
            raise InputError(
                f"'{path}' is not the file that its manifest vouches for (sha256 differs); {rebuild_hint(manifest)}"
            )
        if not trust and path.stat().st_size != record.size_bytes:
            raise InputError(
                f"'{path}' has {path.stat().st_size} bytes where its manifest says {record.size_bytes}; "
                f"{rebuild_hint(manifest)}"
            )
    # ONNX Runtime's engine is an ONNX file itself, and need not be the one it says it was built from.
    graphs = {manifest.graph.name, *([manifest.engine.name] if manifest.backend.startswith("onnxruntime") else [])}
    for name in () if trust else sorted(graphs):
        reason = contradiction(folder / name, {record.name for record in manifest.files}, manifest.precision)
        if reason is not None:
            raise InputError(f"'{folder / name}' {reason}; {rebuild_hint(manifest)}")
    return manifest


def rebuild_hint(manifest: Manifest) -> str:
    """ "rebuild it with: rir-deploy build-engine ...", by the command that the manifest records."""
    return _rebuild({"command": manifest.command})


def _is_plain_file(path: Path, name: str) -> bool:
    """Whether a name is that of a file in the folder itself, and no link to elsewhere."""
    try:
        return Path(name).name == name and not path.is_symlink() and path.is_file()
    except (OSError, ValueError):  # longer than a file system allows, or not a name at all
        return False


def _rebuild(data: dict[str, Any]) -> str:
    """A manifest is not trusted: what is shown of its command is one that this tool could have written."""
    command = data.get("command")
    try:
        words = shlex.split(command) if isinstance(command, str) and command.isprintable() else []
    except ValueError:
        words = []
    if words[:2] == ["rir-deploy", "build-engine"] and shlex.join(words) == command:
        return f"rebuild it with: {command}"
    return "rebuild it with build-engine"


def _parse(data: dict[str, Any]) -> Manifest:
    low, opt, high = (_count(size) for size in data["batch"])
    if not 1 <= low <= opt <= high:
        raise ValueError(f"batch {low}, {opt}, {high}")
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
        targets=tuple(_printable(target) for target in data["targets"]),
        gpu=_text(data, "gpu"),
        options=dict(data["options"]),
        realized=dict(data["realized"]),
        host={str(key): str(value) for key, value in dict(data["host"]).items()},
        command=str(data["command"]),
        created=_text(data, "created"),
        tool=_text(data, "tool"),
    )


def _text(data: dict[str, Any], key: str) -> str:
    return _printable(data[key])


def _printable(value: object) -> str:
    """Text that may be shown: a terminal obeys what is not printable."""
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{value!r:.80} is not plain text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.80} is not a count")
    return value


def _file(data: dict[str, Any]) -> FileRecord:
    return FileRecord(_text(data, "name"), _text(data, "sha256"), _count(data["size_bytes"]))


def _tensor(data: dict[str, Any]) -> TensorSpec:
    shape = tuple(None if size is None else _count(size) for size in data["shape"])
    return TensorSpec(_text(data, "name"), _text(data, "dtype"), shape)
