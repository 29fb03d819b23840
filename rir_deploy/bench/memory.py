"""How much memory this process holds."""

from __future__ import annotations

import re
from pathlib import Path

from rir_deploy.bench.system_files import read_text

# Not getrusage's ru_maxrss: Linux lets a process that was started by a large one inherit its parent's peak.
STATUS = Path("/proc/self/status")


def held_mb(status: Path = STATUS) -> float | None:
    """In MB of 10**6 bytes; None where the system does not say."""
    return _mb("VmRSS", status)


def peak_mb(status: Path = STATUS) -> float | None:
    """The most that it has held since it began."""
    return _mb("VmHWM", status)


def _mb(name: str, status: Path) -> float | None:
    found = re.search(rf"^{name}:\s*(\d+) kB$", read_text(status) or "", re.M)
    return None if found is None else int(found.group(1)) * 1024 / 1e6
