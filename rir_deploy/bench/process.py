"""One job in one fresh process: JSON in on stdin, JSON out on stdout, errors as errors.

A fresh process has the memory, threads and caches of one engine only, and takes no other with it when it dies.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rir_deploy.errors import BackendError, GateError, InputError, RirDeployError, UsageError
from rir_deploy.file_system import scratch_folder, system_error
from rir_deploy.verbosity import LOGGER, is_verbose, pass_on

Job = dict[str, Any]

_ERRORS: dict[int, type[RirDeployError]] = {
    error.exit_code: error for error in (RirDeployError, UsageError, GateError, BackendError, InputError)
}
# The parent's own import path, so that the child finds what the parent does and nothing in the current folder besides.
_START = (
    "import sys; sys.path[:] = sys.argv[3:]; import importlib; from rir_deploy.bench.process import end_with; "
    "end_with(int(sys.argv[2])); sys.exit(importlib.import_module(sys.argv[1]).main())"
)
_VERBOSE = "verbose"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_job(module: str, job: Job, name: str) -> Job:
    """Call ``module.main``, which is to call `serve`, in a fresh interpreter; ``name`` stands for the job in messages.

    Where this process is interrupted or killed, the worker goes with it, with all that it has started; its temporary
    files are in a folder of this process.

    Raises:
        RirDeployError: of the class that the worker raised, with its message.
        BackendError: the worker died without an answer.
    """
    with scratch_folder() as folder, _worker(module, folder) as process:
        out, err = process.communicate(json.dumps({_VERBOSE: is_verbose(), **job}))
    pass_on(err)
    try:
        answer = json.loads(out)
        error = answer.get("error")
    except (ValueError, AttributeError):
        raise BackendError(f"the process of {name} died{_cause(process.returncode, err)}") from None
    if error is not None:
        raise _ERRORS.get(error["exit_code"], RirDeployError)(error["message"])
    return dict(answer)


@contextmanager
def _worker(module: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """An interpreter at the head of a process group of its own, none of which outlives the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _START, module, str(os.getpid()), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def end_with(parent: int) -> None:
    """Ask the system to kill this process when ``parent``, which started it, dies. Linux alone can."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it was asked
        os._exit(1)


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
    except OSError as error:
        answer, code = _failure(str(system_error(error)), UsageError.exit_code)
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
    if job.pop(_VERBOSE, False):
        logging.getLogger(LOGGER).setLevel(logging.INFO)
    return job


def _failure(message: str, exit_code: int) -> tuple[Job, int]:
    return {"error": {"message": message, "exit_code": exit_code}}, exit_code
