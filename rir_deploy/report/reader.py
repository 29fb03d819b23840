"""From JSON to frozen dataclasses: a record's annotations are its schema.

A field with a default may be missing; keys that no field has are passed over. The types a field may have:

1. ``str``, ``bool``, ``int``, ``float`` (which takes whole numbers too), ``object`` (anything that JSON holds);
2. ``Annotated`` numbers with `Bounds`, texts with a `Form`;
3. ``Literal`` words, one of which it must be;
4. ``X | None``; where X is a number, NaN and infinity are read as None, since JSON has no words for them;
5. ``tuple[X, ...]`` (a JSON list), ``tuple[X, X]`` (one of that length), ``dict[str, X]`` (a JSON object), and other
   records.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rir_deploy.errors import InputError

Record = TypeVar("Record")

# A signed 64-bit integer: larger ones are no count of anything and break what draws them.
_LARGEST = 2**63 - 1
# What HTML and XML cannot hold: control characters and halves of surrogate pairs. And what forges there as it does on a
# terminal: separators of lines, and what turns the direction of text round.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_WORDS: dict[Any, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value that a number may have."""

    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Form:
    """What a text has to look like, as a regular expression for all of it and in words."""

    pattern: str
    words: str

    def holds(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


Count = Annotated[int, Bounds(0)]
Size = Annotated[int, Bounds(1)]
Amount = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]
# The signature of a PNG file in base64, and nothing that could end an attribute.
Picture = Annotated[str, Form("iVBORw0KGgo[A-Za-z0-9+/]*={0,2}", "a PNG image in base64")]
Number = Annotated[str, Form("[0-9]{1,18}", "a number")]


def read_record(kind: type[Record], data: object, source: str) -> Record:
    """``data`` (plain JSON data) as a record of the dataclass ``kind``; ``source`` names the file in messages.

    Raises:
        InputError: names the key that is missing or holds something else than its field takes.
    """
    try:
        record: Record = _record(kind, data, "")
    except InputError as error:
        raise InputError(f"'{source}' is not a record that can be read: {error}; repeat the run") from error
    return record


def _record(kind: Any, data: object, at: str) -> Any:
    if not isinstance(data, Mapping):
        raise _wrong(at, "an object", data)
    types_of = get_type_hints(kind, include_extras=True)
    values = {}
    for field in fields(kind):
        key = f"{at}.{field.name}" if at else field.name
        if field.name in data:
            values[field.name] = _read(types_of[field.name], data[field.name], key)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"it has no '{key}'")
    return kind(**values)


def _read(kind: Any, data: object, at: str) -> Any:
    if is_dataclass(kind):
        return _record(kind, data, at)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        missing = data is None or (isinstance(data, float) and not math.isfinite(data))
        return None if missing else _read(inner[0], data, at)
    if origin is Annotated:
        return _ruled(_read(inner[0], data, at), inner[1], at)
    if origin is Literal:
        if data not in inner:
            raise _wrong(at, " or ".join(f"'{word}'" for word in inner), data)
        return data
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise _wrong(at, "a list", data)
        if inner[-1] is not Ellipsis and len(data) != len(inner):
            raise _wrong(at, f"a list of {len(inner)}", list(data))
        return tuple(_read(inner[0], item, f"{at}[{index}]") for index, item in enumerate(data))
    if origin is dict:
        if not isinstance(data, Mapping):
            raise _wrong(at, "an object", data)
        return {_read(inner[0], str(key), at): _read(inner[1], item, f"{at}.{key}") for key, item in data.items()}
    return _scalar(kind, data, at)


def _scalar(kind: Any, data: object, at: str) -> object:
    if kind is object:
        return data
    if kind is str and isinstance(data, str):
        return clean(data)
    if kind is bool and isinstance(data, bool):
        return data
    if kind in (int, float) and isinstance(data, int) and not isinstance(data, bool) and abs(data) <= _LARGEST:
        return kind(data)
    if kind is float and isinstance(data, float) and math.isfinite(data):
        return data
    raise _wrong(at, _WORDS[kind], data)


def _ruled(value: Any, rule: Bounds | Form, at: str) -> Any:
    if not rule.holds(value):
        found = clean(repr(value[:40])) if isinstance(value, str) else f"{value:g}"
        raise InputError(f"'{clean(at)}' must be {rule}, not {found}")
    return value


def clean(text: str) -> str:
    """``text`` with a replacement character for each that a page cannot hold, or would obey."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _wrong(at: str, wanted: str, data: object) -> InputError:
    found = "null" if data is None else "an object" if isinstance(data, Mapping) else clean(repr(data)[:40])
    return InputError(f"'{clean(at)}' must be {wanted}, not {found}" if at else f"it must be {wanted}, not {found}")
