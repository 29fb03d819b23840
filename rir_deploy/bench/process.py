"""One job in one fresh process: JSON in on stdin, JSON out on stdout, errors as errors.

A fresh process has the memory, threads and caches of one engine only, and takes no other with it when it dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rir_deploy.errors import BackendError, GateError, InputError, RirDeployError, UsageError

Job = dict[str, Any]

_ERRORS: dict[int, type[RirDeployError]] = {
    error.exit_code: error for error in (RirDeployError, UsageError, GateError, BackendError, InputError)
}
# The parent's own import path, so that the child finds what the parent does and nothing in the current folder besides.
_START = (
    "import sys; sys.path[:] = sys.argv[2:]; import importlib; sys.exit(importlib.import_module(sys.argv[1]).main())"
)


def run_job(module: str, job: Job, name: str) -> Job:
    """Call ``module.main``, which is to call `serve`, in a fresh interpreter; ``name`` stands for the job in messages.

    Raises:
        RirDeployError: of the class that the worker raised, with its message.
        BackendError: the worker died without an answer.
    """
    command = [sys.executable, "-c", _START, module, *sys.path]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, encoding="utf-8", errors="replace")
    try:
        answer = json.loads(done.stdout)
        error = answer.get("error")
    except (ValueError, AttributeError):
        raise BackendError(f"the process of {name} died{_cause(done.returncode, done.stderr)}") from None
    if error is not None:
        raise _ERRORS.get(error["exit_code"], RirDeployError)(error["message"])
    return dict(answer)


def _cause(code: int, stderr: str) -> str:
    try:
        how = f" with {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
    except ValueError:
        how = f" with signal {-code}"
    memory = " (the system may have run out of memory)" if how.endswith("SIGKILL") else ""
    lines = stderr.strip().splitlines()
    return how + memory + (f": {lines[-1].strip()}" if lines else "")


def serve(work: Callable[[Job], Job]) -> int:
    """The worker's side: the job from stdin through ``work`` to stdout. Returns the process's exit code."""
    # Runtimes print to stdout from native code: only the answer may get there.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        answer, code = work(_read_job()), 0
    except RirDeployError as error:
        answer, code = _failure(str(error), error.exit_code)
    except MemoryError:
        answer, code = _failure("the input does not fit in memory; use a smaller model or batch", InputError.exit_code)
    except Exception as error:  # a bug: the parent reports it with the trace
        answer, code = _failure(f"{error!r}\n{traceback.format_exc()}", RirDeployError.exit_code)
    with os.fdopen(answer_fd, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    return code


def _read_job() -> Job:
    try:
        job = json.load(sys.stdin)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the job on stdin is not JSON ({error}); write one JSON object") from error
    if not isinstance(job, dict):
        raise InputError("the job on stdin is not a JSON object; write one")
    return job


def _failure(message: str, exit_code: int) -> tuple[Job, int]:
    return {"error": {"message": message, "exit_code": exit_code}}, exit_code
