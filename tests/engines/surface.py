"""What TensorRT's modules offer, as `record_surface.py` read it from NVIDIA's own bindings; stand-ins offer no more."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RTX_VERSION = "1.7.1"
FULL_VERSIONS = ("10.3.0", "10.16.1", "11.4.0")


@cache
def surface(version: str) -> dict[str, Any]:
    text = (Path(__file__).parent / "tensorrt_surface.json").read_text(encoding="utf-8")
    return dict(json.loads(text)[version])


def enums(version: str) -> dict[str, Any]:
    """The enumerations by name; a member is a number that knows its name."""
    found = {}
    for name, members in surface(version).items():
        if isinstance(members, dict):
            values = {key: Member(number, key) for key, number in members.items()}
            found[name] = SimpleNamespace(**values, __members__=values)
    return found


class Member(int):
    name: str

    def __new__(cls, number: int, name: str) -> Member:
        member = super().__new__(cls, number)
        member.name = name
        return member


class Guard:
    """A stand-in of a class: what the real one of that version has not, it has not either."""

    def __init__(self, version: str, kind: str, stand_in: Any) -> None:
        object.__setattr__(self, "_offered", frozenset(surface(version)[kind]))
        object.__setattr__(self, "_label", f"{kind} of {version}")
        object.__setattr__(self, "_stand_in", stand_in)

    def __getattr__(self, name: str) -> Any:
        if name not in self._offered:
            raise AttributeError(f"{self._label} has no {name}")
        return getattr(self._stand_in, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._offered:
            raise AttributeError(f"{self._label} has no {name} to set")
        setattr(self._stand_in, name, value)


def inside(guard: Guard) -> Any:
    """The stand-in itself, for a test to look at."""
    return object.__getattribute__(guard, "_stand_in")
