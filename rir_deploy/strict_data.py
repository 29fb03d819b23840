"""JSON and TOML out of files that nobody vouches for: one meaning, plain text, numbers of a machine's size.

Python's own readers take the last of two equal keys, numbers that become infinite, integers of any length (up to a
limit of the interpreter), and halves of surrogate pairs, which cannot be written again.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Beyond it an integer is no number to count with: what divides by it or draws it fails.
_LARGEST = sys.float_info.max
_DIGITS, _OUT_OF_RANGE = sys.float_info.max_10_exp + 2, "it holds an integer that is out of range"
# Tables in tables: what reads them further down calls itself as often.
_DEPTH = 100


def parse_json(text: str | bytes, *, unique: bool = True) -> Any:
    """JSON as plain data. NaN and Infinity, which Python writes, are read. ``unique`` False takes the last of two
    equal keys, as Python does.

    Raises:
        ValueError: it is not JSON, has a key twice, nests too deeply, or holds a number out of range or half of a
            surrogate pair.
    """
    try:
        hook = _unique if unique else None
        data = json.loads(text, object_pairs_hook=hook, parse_float=_finite, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check(data)
    return data


def parse_toml(data: bytes) -> dict[str, Any]:
    """TOML in UTF-8 as plain data.

    Raises:
        ValueError: as `parse_json` does; also for a NUL character, which no path can hold.
    """
    text = data.decode("utf-8")
    try:
        table = tomllib.loads(text, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # of a number: the interpreter's limit for digits, for one
        raise ValueError("it holds a number that is out of range") from error
    _check(table, nul=False)
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has the key {twice!r:.80} twice")
    return table


def _finite(digits: str) -> float:
    """The words inf and nan of TOML are what they say; what asks for a number refuses them by the key's name."""
    value = float(digits)
    if not math.isfinite(value) and digits.lstrip("+-") not in ("inf", "nan"):
        raise ValueError(f"the number {digits:.20} is out of range")
    return value


def _integer(digits: str) -> int:
    """Python reads no more than some thousand digits, and says so in its own terms."""
    if len(digits) > _DIGITS:
        raise ValueError(_OUT_OF_RANGE)
    return int(digits)


def _check(data: object, nul: bool = True) -> None:
    """Depth, integers and texts, keys as well; without recursion. ``nul``: a text may hold that character."""
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > _DEPTH:
            raise ValueError("it is nested too deeply")
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item, nul)
            elif isinstance(item, int) and abs(item) > _LARGEST:
                raise ValueError(_OUT_OF_RANGE)
        level = below


def _check_text(text: str, nul: bool) -> None:
    if not text.isascii():
        text.encode("utf-8")  # UnicodeEncodeError is a ValueError
    if "\0" in text and not nul:
        raise ValueError("it holds a text with a NUL character")
