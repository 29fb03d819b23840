"""Typed reading of plain tables (TOML, JSON): complaints are InputErrors that name table and key."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rir_deploy.errors import InputError


def check_table(value: object, where: str, required: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
    """``value`` as a dict that has all ``required`` keys and none beside them and the ``optional`` ones.

    Raises:
        InputError: not a table, a key missing, or a key unknown.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a table, not {value!r}")
    needed = list(required)
    known = [*needed, *optional]
    for key in value:
        if key not in known:
            raise InputError(f"{where} has the unknown key {key!r} (known: {', '.join(known)})")
    for key in needed:
        if key not in value:
            raise InputError(f"{where} lacks the key '{key}'")
    return dict(value)


def as_integer(value: object, what: str) -> int:
    """``value`` if it is an integer (a bool is not one)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what} must be an integer, not {value!r}")
    return value


def as_number(value: object, what: str) -> float:
    """``value`` as a finite float (a bool is not a number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{what} must be a number, not {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InputError(f"{what} must be a finite number")
    return result


def as_switch(value: object, what: str) -> bool:
    """``value`` if it is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{what} must be true or false, not {value!r}")
    return value


def as_text(value: object, what: str) -> str:
    """``value`` if it is a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{what} must be a non-empty string, not {value!r}")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """``value`` as a list; a tuple counts as one."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{what} must be a list, not {value!r}")
    return list(value)


def as_table(value: object, what: str) -> dict[str, Any]:
    """A deep copy of the table ``value``, of which only what JSON can hold is accepted."""
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a table, not {value!r}")
    return {as_text(key, f"a key of {what}"): as_plain(item, f"{what}.{key}") for key, item in value.items()}


def as_plain(value: object, what: str) -> Any:
    """A deep copy of ``value``, of which only what JSON can hold is accepted."""
    if isinstance(value, dict):
        return as_table(value, what)
    if isinstance(value, (list, tuple)):
        return [as_plain(item, f"{what}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return as_number(value, what)
    raise InputError(f"{what} must be a number, a string, a boolean, a list or a table, not {value!r}")
