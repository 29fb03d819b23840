"""The process that mutants are tried in: commands and checks from stdin, what became of them on stdout, one line each.

It watches itself: by Python's audit events it sees what is executed, and every file that is opened to be written.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# Less than a Jetson has: what asks for more has to be refused, not to bring the machine down.
MEMORY_BYTES = 6 << 30
_RUNS_CODE = (
    *("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "pty.spawn"),
    *("subprocess.Popen", "socket.connect"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Watch:
    """What should not happen: code that is run, a file outside of ``root`` that is written, the network."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _is_write(arguments):
            self._path(arguments[0])
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "shutil.rmtree"):
            self._path(arguments[1] if event in ("os.rename", "os.symlink", "os.link") else arguments[0])
        elif event in _RUNS_CODE:
            self.seen.append(f"{event} {arguments!r:.200}")

    def _path(self, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        real = os.path.realpath(os.fsdecode(path))
        if not real.startswith((f"{self.root}/", "/dev/null")):
            self.seen.append(f"writes {real:.200}")


def _is_write(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITES)


def run(arguments: list[str]) -> dict[str, Any]:
    """A command, as a user would have called it."""
    from rir_deploy.cli import cli
    from rir_deploy.cli.common import run_command

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(cli, arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def main() -> None:
    """Serve until stdin ends. What C and C++ libraries print goes to stderr."""
    root = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for module in ("rir_deploy.cli", "torch", "onnxruntime", "rir_deploy.pipeline.verify", "tests.fuzz.right"):
        importlib.import_module(module)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + _size(), resource.RLIM_INFINITY))
    watch = Watch(root)
    sys.addaudithook(watch)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        job, watch.seen = json.loads(line), []
        if "run" in job:
            answer = run(job["run"])
        else:
            from tests.fuzz.right import CHECKS

            answer = {"verdict": CHECKS[job["check"]](job)}
        print(json.dumps({**answer, "seen": watch.seen}), file=answers, flush=True)


def _size() -> int:
    """Bytes of address space that are taken already: libraries map far more than they use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
