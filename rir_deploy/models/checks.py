"""Range checks shared by the options records of this package; each raises a one-sentence InputError."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rir_deploy.errors import InputError, unknown_name


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise InputError unless ``value`` is an int (not a bool) in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise InputError unless ``value`` is a finite number in ``[low, high]``."""
    number = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    if not number or not low <= value <= high:  # type: ignore[operator]  # `number` has narrowed it
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")


def check_pair(name: str, value: object, low: int, high: int) -> None:
    """Raise InputError unless ``value`` is a tuple of two ints in ``[low, high]``."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise InputError(f"{name} must be a pair of whole numbers, not {value!r}")
    for part in value:
        check_integer(f"each part of {name}", part, low, high)


def check_flag(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {value!r}")


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise InputError unless ``value`` is one of ``known``."""
    names = list(known)
    if value not in names:
        raise InputError(f"{name} must be one of {', '.join(names)}, not {value!r}")


def check_keys(kind: str, data: object, known: Iterable[str], required: Iterable[str] = ()) -> Mapping[str, Any]:
    """``data`` as a mapping whose keys are all ``known`` and include the ``required`` ones.

    Raises:
        InputError: it is no mapping, a key is unknown (the closest known one is suggested), or one is
            missing.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{kind} must be a table of names and values, not {data!r}")
    names = list(known)
    for key in data:
        if key not in names:
            raise InputError(str(unknown_name(f"key in {kind}", str(key), names)))
    missing = [key for key in required if key not in data]
    if missing:
        raise InputError(f"{kind} lacks {', '.join(missing)}; add what is missing")
    return data
