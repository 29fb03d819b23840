"""Mutations of bytes and of plain data (JSON, TOML), by a random generator: equal seeds give equal mutants."""

from __future__ import annotations

import json
import random
from typing import Any

Mutant = tuple[str, bytes]
# What a parser may not expect in the place of a number, a name or a list.
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "a" * 5000,
    "../../evil",
    "/etc/passwd",
    "graph.onnx\0",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "a\nb",
    [],
    {},
    [[]],
    {"": None},
    ["x"] * 300,
)
DEPTH = 20_000


def mutate_bytes(rng: random.Random, whole: bytes) -> Mutant:
    """One change of the bytes as they lie, whatever they mean."""
    size = len(whole)
    start, end = sorted(rng.randrange(size + 1) for _ in range(2))
    end = min(end, start + rng.choice((1, 4, 64, 4096)))
    at = rng.randrange(size)
    noise = rng.randbytes(rng.randrange(1, 64))
    change = rng.choice(("bit", "byte", "bytes", "cut", "delete", "insert", "repeat", "append", "zeros", "length"))
    mutant = {
        "bit": whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :],
        "byte": whole[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) + whole[at + 1 :],
        "bytes": whole[:start] + noise + whole[start + len(noise) :],
        "cut": whole[:start],
        "delete": whole[:start] + whole[end:],
        "insert": whole[:start] + noise + whole[start:],
        "repeat": whole[:end] + whole[start:],
        "append": whole + noise,
        "zeros": whole[:start] + bytes(end - start) + whole[end:],
        # Lengths and counts stand at the front of most formats.
        "length": whole[: at % 16] + rng.choice((b"\xff" * 8, b"\xff\xff\xff\x7f", bytes(8))) + whole[at % 16 + 8 :],
    }
    return f"bytes: {change}", mutant[change]


def mutate_text(rng: random.Random, text: str) -> Mutant:
    """One change of text that is read as JSON or TOML: by characters, lines or tokens."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    odd = json.dumps(rng.choice(ODD))
    name, _, value = lines[at].partition("=" if "=" in text else ":")
    change = rng.choice(("drop line", "repeat line", "swap value", "insert", "nest"))
    mutant = {
        "drop line": [*lines[:at], *lines[at + 1 :]],
        "repeat line": [*lines[: at + 1], *lines[at:]],
        "swap value": [*lines[:at], f"{name}{'=' if '=' in text else ':'} {odd}\n" if value else odd, *lines[at + 1 :]],
        "insert": [*lines[:at], rng.choice(("[", "{", '"', "\0", "\ufeff", "x = ", odd)), *lines[at:]],
        "nest": [*lines[:at], f"x = {'[' * DEPTH}\n" if "=" in text else "[" * DEPTH, *lines[at:]],
    }
    return f"text: {change}", "".join(mutant[change]).encode("utf-8", "surrogatepass")


def mutate_data(rng: random.Random, data: Any) -> tuple[str, Any]:
    """One change of plain data at a place of it: the rest stays as it is."""
    path = rng.choice(places(data)[1:] or [()])
    change = rng.choice(("odd", "odd", "number", "delete", "add", "swap", "nest"))
    if change == "delete":
        return "data: delete", _without(data, path)
    if change == "add":
        return "data: add", _extended(data, path, rng.choice(ODD))
    if change == "swap":
        return "data: swap", put(data, path, _at(data, rng.choice(places(data)[1:] or [()])))
    if change == "nest":
        value: Any = 0
        for _ in range(rng.choice((2, 50))):
            value = [value]
        return "data: nest", put(data, path, value)
    value = _at(data, path)
    if change == "number" and isinstance(value, int | float):
        return "data: number", put(data, path, rng.choice((-value, value + 1, value * 2, value / 2, str(value))))
    return "data: odd", put(data, path, rng.choice(ODD))


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, by its keys and indices; the whole is the first."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``data`` with ``value`` at a place of it."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def _without(data: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return None
    above = _at(data, path[:-1])
    if isinstance(above, dict):
        return put(data, path[:-1], {key: value for key, value in above.items() if key != path[-1]})
    return put(data, path[:-1], [value for place, value in enumerate(above) if place != path[-1]])


def _extended(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    above = _at(data, path[:-1])
    if isinstance(above, dict):
        return put(data, path[:-1], {**above, "extra": value})
    return put(data, path[:-1], [*above, value]) if isinstance(above, list) else value


def to_json(data: Any) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates among it."""
    return json.dumps(data, indent=1).encode("utf-8", "surrogatepass")
