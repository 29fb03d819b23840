"""A run that is killed: its whole process group, at any moment; and what has to be the same once it is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rir_deploy.artifacts import sha256_file, sha256_json
from rir_deploy.pipeline.steps import RECORD_NAME

START_SECONDS = 120.0
# What a clock says, and the hash of a file that holds it.
_TIMES = ("created", "seconds")


@dataclass(frozen=True)
class Ended:
    """``killed`` is False where the run was done before; ``step`` is the last that its record knows, "" for none;
    ``seconds`` are those from the moment it opened its folder.
    """

    killed: bool
    step: str
    seconds: float


def kill_run(plan: Path, folder: Path, seconds: float, steps: int = 0) -> Ended:
    """Start ``rir-deploy run``, and kill it ``seconds`` after it has opened its folder and has ``steps`` on record."""
    record = folder / RECORD_NAME
    before = _written(record)
    process = subprocess.Popen(
        [sys.executable, "-m", "rir_deploy", "run", str(plan), "-o", str(folder), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if _written(record) != before and len(_steps(record)) >= steps:  # opening its folder a run writes its record
            break
        time.sleep(0.002)
    started = time.monotonic()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    code, worked = process.wait(), time.monotonic() - started
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"the run ended by itself with exit code {code}")
    return Ended(code != 0, next(reversed(_steps(record)), ""), worked)


def _steps(record: Path) -> dict[str, Any]:
    return dict(json.loads(record.read_text(encoding="utf-8"))["steps"])


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run with the hash of what has to be the same: all but clocks, and what is hashed with them."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    if path.name == "report.html":  # drawn from run.json, with its time
        return "there"
    if path.name not in ("manifest.json", "run.json", RECORD_NAME):
        return sha256_file(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    if path.name == RECORD_NAME:  # of results that hold times; run.json repeats them without
        data = {
            name: [sorted(step["files"]), step["key"]] for name, step in data["steps"].items() if _is_timeless(name)
        }
    return sha256_json(_timeless(data))


def _is_timeless(step: str) -> bool:
    """The key of what follows an engine is by the hash of its manifest."""
    return not step.startswith(("verify", "bench", "stages", "roofline"))


def _timeless(data: Any) -> Any:
    if isinstance(data, list):
        return [_timeless(value) for value in data]
    if not isinstance(data, dict):
        return data
    if str(data.get("path")).endswith("manifest.json"):
        return data["path"]
    return {key: _timeless(value) for key, value in data.items() if key not in _TIMES}
