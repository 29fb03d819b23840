"""The builder's progress, passed on."""

from __future__ import annotations

from typing import Any

from rir_deploy.engines.base import Progress
from rir_deploy.engines.tensorrt_api import TensorRt


def make_monitor(module: TensorRt, on_progress: Progress) -> Any:
    """A progress monitor; it has to outlive the build. ``stopped`` is the exception that ended it, if one did."""

    base: Any = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]  # its type is known at run time only
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.totals: dict[str, int] = {}
            self.stopped: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.totals[phase] = steps
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return self.stopped is None

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self.totals.get(phase, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if self.stopped is None:
                    on_progress(phase, done, self.totals.get(phase, done))
            except BaseException as error:  # Ctrl-C too: it may not cross the C++ frames, so it is raised after them
                self.stopped = error

    return Monitor()
