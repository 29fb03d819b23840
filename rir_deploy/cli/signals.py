"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it had open is closed, what it had begun is removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# One signal often comes twice, from a terminal and from a parent: the second must not disturb the cleaning up.
_QUIET_SECONDS = 2.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """A signal came that asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block the signals raise `Interrupted` in the main thread; one that is ignored (nohup) stays so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        handler = _Handler()
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        # None stands for a handler that was not installed from Python, and could not be put back.
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Handler:
    """Raises, at most once in a while."""

    def __init__(self) -> None:
        self._last = -_QUIET_SECONDS

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= _QUIET_SECONDS:
            self._last = now
            raise Interrupted(number)


def signal_of(error: BaseException) -> int:
    """The signal behind an exception that ended a command, or behind the one it was made of."""
    for one in (error, error.__cause__):
        if isinstance(one, Interrupted):
            return one.number
    return signal.SIGINT
