"""A process that dies, or is interrupted, at any line of the code that writes files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_WRITERS = ("artifacts.py", "claim.py", "file_system.py", "staging.py", "onnx_file.py")


def deaths(work: Callable[[], object], interrupt: bool = False) -> Iterator[int]:
    """Do ``work`` in a process of its own again and again: at the first line of the writers it dies (SIGKILL, or a
    KeyboardInterrupt from a signal), then at the second, until it lives. Yields the line's number after each death.
    """
    line = 1
    while _dies_at(line, work, interrupt):
        yield line
        line += 1


def _dies_at(line: int, work: Callable[[], object], interrupt: bool) -> bool:
    child = os.fork()
    if child == 0:
        code = 9
        try:
            sys.settrace(_tracer(line, interrupt))
            work()
            sys.settrace(None)
            code = 0
        except KeyboardInterrupt:
            code = 8
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 8
    assert died or os.WEXITSTATUS(status) == 0, status
    return died


def _tracer(line: int, interrupt: bool) -> Callable[[FrameType, str, Any], Any]:
    left = line

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(_WRITERS) or "rir_deploy" not in frame.f_code.co_filename:
            return None if event == "call" else trace
        if event == "line":
            left -= 1
            if left == 0:
                if interrupt:
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace
