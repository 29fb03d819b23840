"""What the fold's benchmarks share: a step in a process of its own, its memory, the machine's load, the report."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_self(script: str, *arguments: object) -> Any:
    """Run a benchmark again in a process of its own, and read the JSON it prints."""
    command = [sys.executable, script, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def peak_gb() -> float:
    """The most memory that this process has held so far, in GB of 2**30 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def load() -> float:
    """How many processes wanted a core over the last minute: what else a machine was doing before the start."""
    return round(os.getloadavg()[0], 1)


def write_report(report: dict[str, Any], output: Path | None) -> None:
    text = json.dumps(report, indent=2)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    print(text)
