"""Tries mutants in a process that may die or hang: that is an outcome like any other, and a fresh one goes on."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


class WorkerDiedError(Exception):
    """The process ended, or was ended: how."""


class Worker:
    """A `worker` process over ``root``, in which every file is written; started again whenever it is gone."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        for name in ("tmp", "home", "here"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._log: TextIO = open(self.root / "worker.log", "w", encoding="utf-8")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, arguments: Sequence[object], seconds: float) -> dict[str, Any]:
        """A command's exit code, output and what the watch saw; `WorkerDiedError` where there was none in time."""
        return self._ask({"run": [str(argument) for argument in arguments]}, seconds)

    def check(self, name: str, facts: dict[str, Any], seconds: float) -> str:
        """The verdict of one of `right.CHECKS`."""
        return str(self._ask({"check": name, **facts}, seconds)["verdict"])

    def start(self) -> None:
        """Have a process that waits for work."""
        if self._process is not None:
            return
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.root / "tmp"),
            "HOME": str(self.root / "home"),
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(self.root / "home"),  # torch makes one when it is imported
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self.root / "here",
            env=environment,
            start_new_session=True,
        )
        self._read(START_SECONDS)

    def stop(self) -> None:
        """End the process and all that it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    def _ask(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        return dict(self._read(seconds))

    def _read(self, seconds: float) -> Any:
        """One line of the process, which is ended where it does not come in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        data, end = bytearray(), time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.stop()
                    raise WorkerDiedError(f"no answer within {seconds:g} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    code = self._process.wait()
                    self.stop_quietly()
                    raise WorkerDiedError(
                        f"it died with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
                    )
                data += chunk
        return json.loads(data)

    def stop_quietly(self) -> None:
        """Forget a process that is gone already."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
