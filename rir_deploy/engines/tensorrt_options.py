"""How TensorRT builds, beside what the graph says: nothing here changes a precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rir_deploy.errors import UsageError, unknown_name

# What an engine can be made to run on beside the GPU it was built on.
HARDWARE = ("ampere-plus", "same-capability")
MAX_LEVEL = 5

# The options by the names of the command line, in the order in which they are refused.
_FLAGS = {
    "workspace_mib": "--workspace",
    "builder_level": "--builder-level",
    "timing_cache": "--timing-cache",
    "version_compatible": "--version-compatible",
    "hardware": "--hardware-compatible",
    "refit": "--refit",
    "strip_weights": "--strip-weights",
}


@dataclass(frozen=True)
class TensorRtOptions:
    """Options of the builder; what is left None is as TensorRT has it.

    Attributes:
        workspace_mib: GPU memory in MiB that a kernel may use while it runs.
        builder_level: 0 (built fast) to 5 (searched longest); TensorRT's own default is 3.
        timing_cache: file of kernel timings, read where it exists and written after the build.
        version_compatible: the engine also loads in later versions of TensorRT. It then holds a runtime of its own,
            which is host code.
        hardware: "ampere-plus" (every GPU from compute capability 8.0) or "same-capability".
        refit: weights can be replaced in the finished engine.
        strip_weights: leave the weights out of the engine; loading takes them from the graph beside it.
    """

    workspace_mib: int | None = None
    builder_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str | None = None
    refit: bool = False
    strip_weights: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= 1 << 20:
            raise UsageError(f"a workspace of {self.workspace_mib} MiB: give 1 to {1 << 20}")
        if self.builder_level is not None and not 0 <= self.builder_level <= MAX_LEVEL:
            raise UsageError(f"builder level {self.builder_level}: give 0 to {MAX_LEVEL}")
        if self.hardware is not None and self.hardware not in HARDWARE:
            raise unknown_name("hardware compatibility", self.hardware, HARDWARE)

    @property
    def given(self) -> dict[str, str | int | bool]:
        """What was asked for, as plain data: {"workspace_mib": 256, "refit": True}."""
        values = {name: getattr(self, name) for name in _FLAGS}
        asked = {name: value for name, value in values.items() if value is not None and value is not False}
        return {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()}


def refuse_options(options: TensorRtOptions, names: Iterable[str], reason: str) -> None:
    """UsageError with ``reason`` where one of these options is asked for."""
    given = [_FLAGS[name] for name in names if name in options.given]
    if given:
        raise UsageError(f"{', '.join(given)}: {reason}; leave it out")


def refuse_all_options(options: TensorRtOptions, label: str) -> None:
    """UsageError where anything is asked for of a backend that has none of it."""
    refuse_options(options, _FLAGS, f"only TensorRT's builder knows that, {label} does not")
