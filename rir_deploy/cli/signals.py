"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it had open is closed, what it had begun is removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# One signal often comes twice, from a terminal and from a parent: the second must not disturb the cleaning up. Where
# an exception cannot go on (in a callback of the import system, for one) Python drops it: it is raised again then.
_QUIET_SECONDS = 3.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """A signal came that asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block the signals raise `Interrupted` in the main thread; one that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        # None stands for a handler that was not installed from Python, and could not be put back.
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            handler.install(number)
    try:
        yield
    finally:
        handler.remove()


class _Handler:
    """Raises what came first, at most once in a while, and again for as long as the block goes on."""

    def __init__(self) -> None:
        self._before: dict[int, signal._HANDLER] = {}
        self._came: int | None = None
        self._last = -_QUIET_SECONDS
        self._is_over = False

    def install(self, number: int) -> None:
        self._before[number] = signal.signal(number, self)

    def remove(self) -> None:
        self._is_over = True  # an alarm on its way must not raise out of here: the handlers would stay
        if self._came is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in self._before.items():
            signal.signal(number, old)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._is_over or now - self._last < _QUIET_SECONDS:
            return
        self._last = now
        if self._came is None:
            self._came = number
            if hasattr(signal, "setitimer"):
                self.install(signal.SIGALRM)
                signal.setitimer(signal.ITIMER_REAL, _QUIET_SECONDS + 0.1, _QUIET_SECONDS + 0.1)
        raise Interrupted(self._came)


def signal_of(error: BaseException) -> int:
    """The signal behind an exception that ended a command, or behind the one it was made of."""
    for one in (error, error.__cause__):
        if isinstance(one, Interrupted):
            return one.number
    return signal.SIGINT
