"""The record of a bundle, ``index.json``: what every member is, and the bounds that an answer has to keep.

It has one form only: what is read must be what would be written, so that equal content is equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rir_deploy.data.tables import as_integer, as_list, as_number, as_table, as_text, check_table
from rir_deploy.errors import InputError
from rir_deploy.strict_data import parse_json

INDEX_NAME = "index.json"
IMAGES_NAME = "golden/images.npy"
# Beside a graph: the range table it was made with, and the rounded weights.
_RANGES = (".ranges.json", ".ranges.safetensors")
MANIFEST_NAME = "manifest.json"
# The graph whose logits every answer is held against.
REFERENCE = "fp32"
FORMAT = 1
MAX_MEMBERS = 1000
MAX_NAME = 200

# No part begins with a dot, so none is "..", none is hidden; no drive letter, backslash or empty part either.
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """A file of the bundle: its relative name with "/", size in bytes, hex sha256.

    Raises:
        InputError: a name that could leave a folder, or no size or hash.
    """

    name: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(as_text(self.name, "the name of a member")) or len(self.name) > MAX_NAME:
            raise InputError(f"the name of its member {self.name!r} is not a plain relative one")
        if as_integer(self.size_bytes, f"the size of '{self.name}'") < 0:
            raise InputError(f"the size of '{self.name}' is under 0")
        if not _SHA256.fullmatch(as_text(self.sha256, f"the sha256 of '{self.name}'")):
            raise InputError(f"the sha256 of '{self.name}' is not 64 hexadecimal digits")


@dataclass(frozen=True)
class Bounds:
    """What golden images ask of a precision: the smallest agreement (fraction) and, unless None, the largest error of
    an output: atol + rtol * the largest output.

    Raises:
        InputError: a bound out of its range, or one of ``atol`` and ``rtol`` without the other.
    """

    min_agreement: float
    atol: float | None
    rtol: float | None

    def __post_init__(self) -> None:
        tolerances = (self.atol, self.rtol)
        if not 0.0 <= self.min_agreement <= 1.0 or any(value is not None and value < 0.0 for value in tolerances):
            raise InputError(f"bounds are an agreement of 0 to 1 and tolerances of at least 0, not {self}")
        if (self.atol is None) != (self.rtol is None):
            raise InputError(f"bounds have both tolerances or none, not {self}")


@dataclass(frozen=True)
class Item:
    """A graph, or an engine where ``backend`` is set.

    Attributes:
        flavour: of the Q/DQ of an INT8 one: "tensorrt" or "cpu".
        targets: compute capabilities that an engine was built for.
        ran_on: the runtime that gave its golden outputs when the bundle was made; None where it could not run there,
            ``reason`` says why.
    """

    name: str
    precision: str
    flavour: str | None = None
    backend: str | None = None
    backend_version: str | None = None
    targets: tuple[str, ...] = ()
    ran_on: str | None = None
    reason: str = ""

    @property
    def kind(self) -> str:
        return "graph" if self.backend is None else "engine"

    @property
    def path(self) -> str:
        """The member that is the graph, or the folder of the engine."""
        return f"graphs/{self.name}.onnx" if self.backend is None else f"engines/{self.name}"

    @property
    def outputs(self) -> str:
        """The member with its golden outputs; there is one where it ran."""
        return f"golden/{self.name}.npy"

    def owns(self, member: str) -> bool:
        if self.backend is None:
            inside = member in (self.path, *(self.path.removesuffix(".onnx") + suffix for suffix in _RANGES))
        else:
            inside = member.startswith(f"{self.path}/")
        return inside or (member == self.outputs and self.ran_on is not None)


@dataclass(frozen=True)
class Golden:
    """The golden images: name and hex sha256 of their source, the seed of the choice, their places in the source."""

    source: str
    source_sha256: str
    seed: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """The whole record. ``recipe`` is the preprocessing and the class names; ``bounds`` are by precision.

    Raises:
        InputError: the parts do not fit together.
    """

    tool: str
    recipe: dict[str, Any]
    golden: Golden
    items: tuple[Item, ...]
    bounds: Mapping[str, Bounds]
    members: tuple[Member, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        _check_names(names)
        _check_items(self, set(names))

    @property
    def reference(self) -> Item:
        return next(item for item in self.items if item.name == REFERENCE)

    def to_json(self) -> str:
        """Canonical JSON, ASCII: equal records give equal bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Index:
        """Read what `to_json` wrote; InputError on anything else."""
        try:
            data = parse_json(text)
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise InputError(f"its index is not of format {FORMAT}, which this version reads")
            index = _index(data)
            same = index.to_json() == text
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(f"its index is malformed ({error!r})") from error
        if not same:
            raise InputError("its index is not in the form in which bundle writes it")
        return index


def _check_names(names: list[str]) -> None:
    if not 0 < len(names) <= MAX_MEMBERS:
        raise InputError(f"its index names {len(names)} members, and a bundle has 1 to {MAX_MEMBERS}")
    if names != sorted(names):
        raise InputError("the members of its index are not sorted")
    # A file system may take two names that differ in case for one.
    folded = [INDEX_NAME, *(name.casefold() for name in names)]
    twice = next((name for position, name in enumerate(folded) if name in folded[:position]), None)
    if twice is not None:
        raise InputError(f"its index names the member '{twice}' twice")
    folders = {name[:at] for name in folded for at, letter in enumerate(name) if letter == "/"}
    both = next((name for name in folded if name in folders), None)
    if both is not None:
        raise InputError(f"its member '{both}' is a file and a folder")


def _check_items(index: Index, names: set[str]) -> None:
    items = index.items
    if len({item.name for item in items}) != len(items):
        raise InputError("its index names a graph or engine twice")
    if not any(item.name == REFERENCE and item.kind == "graph" and item.ran_on is not None for item in items):
        raise InputError(f"it has no graph '{REFERENCE}' with golden outputs")
    for item in items:
        needed = [item.path if item.kind == "graph" else f"{item.path}/{MANIFEST_NAME}"]
        needed += [item.outputs] if item.ran_on is not None else []
        missing = next((name for name in needed if name not in names), None)
        if missing is not None:
            raise InputError(f"its member '{missing}' is missing")
        if item.precision not in index.bounds:
            raise InputError(f"its index has no bounds for {item.precision}")
    known = {IMAGES_NAME}
    stray = next((name for name in sorted(names - known) if not any(item.owns(name) for item in items)), None)
    if stray is not None:
        raise InputError(f"its member '{stray}' belongs to no graph or engine")
    if IMAGES_NAME not in names:
        raise InputError(f"its member '{IMAGES_NAME}' is missing")


def _index(data: dict[str, Any]) -> Index:
    table = check_table(data, "the index", ("tool", "recipe", "golden", "items", "bounds", "members", "format"), ())
    return Index(
        tool=as_text(table["tool"], "tool"),
        recipe=as_table(table["recipe"], "recipe"),
        golden=_golden(table["golden"]),
        items=tuple(_item(item) for item in as_list(table["items"], "items")),
        bounds={name: _bounds(found) for name, found in as_table(table["bounds"], "bounds").items()},
        members=tuple(Member(**member) for member in as_list(table["members"], "members")),
    )


def _golden(data: dict[str, Any]) -> Golden:
    indices = tuple(as_integer(x, "indices") for x in as_list(data["indices"], "indices"))
    return Golden(
        as_text(data["source"], "source"),
        as_text(data["source_sha256"], "source_sha256"),
        as_integer(data["seed"], "seed"),
        indices,
    )


def _item(data: dict[str, Any]) -> Item:
    optional = {key: data[key] for key in ("flavour", "backend", "backend_version", "ran_on")}
    return Item(
        name=as_text(data["name"], "name"),
        precision=as_text(data["precision"], "precision"),
        targets=tuple(as_text(target, "targets") for target in as_list(data["targets"], "targets")),
        reason=str(data["reason"]),
        **{key: None if value is None else as_text(value, key) for key, value in optional.items()},
    )


def _bounds(data: dict[str, Any]) -> Bounds:
    atol, rtol = (None if data[key] is None else as_number(data[key], key) for key in ("atol", "rtol"))
    return Bounds(as_number(data["min_agreement"], "min_agreement"), atol, rtol)
