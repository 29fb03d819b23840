"""Ceilings are measured once: kept in the user's cache folder, one file a machine, and believed only where they fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rir_deploy.artifacts import atomic_file, sha256_json
from rir_deploy.errors import InputError, RirDeployError
from rir_deploy.roofline.ceilings import Ceilings
from rir_deploy.strict_data import parse_json

FORMAT = 1


def cache_folder() -> Path | None:
    """``rir-deploy`` in $XDG_CACHE_HOME, or in ~/.cache; None where there is no home either.

    A relative $XDG_CACHE_HOME is passed over, as the XDG Base Directory Specification asks.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "rir-deploy"
    except RuntimeError:
        return None


def cache_file(machine: dict[str, object]) -> Path | None:
    """Where the ceilings of that machine are kept."""
    folder = cache_folder()
    return None if folder is None else folder / f"ceilings-{sha256_json(machine)[:16]}.json"


def read_cache(path: Path, machine: dict[str, object]) -> Ceilings | None:
    """The ceilings of ``machine``; None where there are none yet.

    Raises:
        InputError: the file is damaged, was edited, or is of another machine.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        body, digest = data["ceilings"], data["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the cache '{path}' is damaged ({error!r}); remove it to measure again") from error
    if data.get("format") != FORMAT or digest != sha256_json(body):
        raise InputError(f"the cache '{path}' is not as it was written; remove it to measure again")
    try:
        ceilings = Ceilings.from_dict(body)
    except RirDeployError as error:
        raise InputError(f"the cache '{path}' is damaged: {error}; remove it to measure again") from error
    if ceilings.machine != machine:
        raise InputError(f"the cache '{path}' is of another machine or other runtimes; remove it to measure again")
    return ceilings


def write_cache(path: Path, ceilings: Ceilings) -> None:
    """Write beside ``path`` and rename into place.

    Raises:
        UsageError: the folder cannot be written.
    """
    body = ceilings.to_dict()
    text = json.dumps({"format": FORMAT, "ceilings": body, "sha256": sha256_json(body)}, indent=1, sort_keys=True)
    with atomic_file(path, force=True) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
