"""A worker that behaves as its job says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rir_deploy import errors
from rir_deploy.bench.memory import held_mb, peak_mb
from rir_deploy.bench.process import serve


def main() -> int:
    return serve(_work)


def _work(job: dict[str, Any]) -> dict[str, Any]:
    if job["do"] == "raise":
        raise getattr(errors, job["error"])(job["message"])
    if job["do"] == "bug":
        raise ZeroDivisionError("seven by nought")
    if job["do"] == "memory":
        raise MemoryError
    if job["do"] == "kill":
        sys.stderr.write("noise\nlast words\n")
        sys.stderr.flush()
        os.kill(os.getpid(), job["signal"])
    if job["do"] == "exit":
        os._exit(7)
    if job["do"] == "chatter":
        print("from Python")
        os.write(1, b"from native code\n")
    if job["do"] == "wait":  # with a child of its own and a temporary file
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        _, name = tempfile.mkstemp()
        Path(job["note"]).write_text(f"{os.getpid()} {child.pid} {name}")
        time.sleep(60)
    if job["do"] == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    if job["do"] == "hold":
        taken = b"x" * job["bytes"]  # written to, so that it is there
        held = held_mb()  # before the peak, as a bench reads them: a page more between the two is in the peak alone
        return {"peak_mb": peak_mb(), "held_mb": held, "length": len(taken)}
    return {"pid": os.getpid(), "path": sys.path, "given": job.get("given")}
