"""Every error a user can meet, with the exit code on its class.

A message is one sentence that names the object and says the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RirDeployError(Exception):
    """Base of all errors raised on purpose. Exit code 1: unexpected."""

    exit_code = 1


class UsageError(RirDeployError):
    """The request cannot be carried out as asked: unknown name, unwritable or existing output."""

    exit_code = 2


class GateError(RirDeployError):
    """A gate failed: parity, accuracy, a required fold."""

    exit_code = 3


class BackendError(RirDeployError):
    """A runtime or the hardware it needs is not there."""

    exit_code = 4


class InputError(RirDeployError):
    """An input is malformed, unsupported or untrusted."""

    exit_code = 5


def unknown_name(kind: str, name: str, known: Iterable[str], *, suggest: bool = True) -> UsageError:
    """A UsageError for ``name`` that lists the known names, as they come, and suggests a close one.

    ``suggest`` False where names that look alike mean different things.
    """
    names = list(known)
    close = [other for other in names if name and other.startswith(name)]
    close = close or difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close and suggest else ""
    return UsageError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")
