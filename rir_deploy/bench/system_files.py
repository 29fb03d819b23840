"""What a system says of itself, in small files and by its tools. What cannot be read is None, never an error."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    text = read_text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def read_mhz(path: Path, hertz: float) -> float | None:
    """A clock that the file gives in units of so many ``hertz``."""
    value = read_number(path)
    return None if value is None else round(value * hertz / 1e6, 1)


def entries(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder that may not be there."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def ask(command: Sequence[str]) -> str | None:
    """What a tool prints; None where it is not there or fails."""
    tool = shutil.which(command[0])
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout
