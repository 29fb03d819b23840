"""Which GPUs an engine is built for."""

from __future__ import annotations

import re
from typing import Any

from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.engines.tensorrt_flavour import Flavour
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.errors import UsageError, unknown_name


def known_targets(module: TensorRt) -> tuple[str, ...]:
    """The compute capabilities that a module builds for: ("sm75", "sm80", ...); () where it offers no choice."""
    members = getattr(getattr(module, "ComputeCapability", None), "__members__", {})
    numbers = sorted(int(match[1]) for name in members if (match := re.fullmatch(r"SM(\d+)", name)))
    return tuple(f"sm{number}" for number in numbers)


def choose_targets(module: TensorRt, flavour: Flavour, gpu: Gpu | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The targets as a builder takes them: lower case, each once, in ascending order.

    Raises:
        UsageError: one that there is not, or that this flavour does not build for here.
    """
    names = tuple(sorted({name.lower() for name in wanted}, key=lambda name: (len(name), name)))
    if not flavour.portable:
        here = () if gpu is None else (gpu.target,)
        if names and names != here:
            raise UsageError(
                f"{flavour.label} builds only for the GPU of this machine ({''.join(here) or 'none'}), not for "
                f"{', '.join(names)}; build on the target, or take --backend tensorrt-rtx"
            )
        return here
    known = known_targets(module)
    for name in names:
        if name not in known:
            raise unknown_name(f"{flavour.label} target", name, known, suggest=False)
    return names


def set_targets(module: TensorRt, flavour: Flavour, config: Any, targets: tuple[str, ...]) -> None:
    """Tell the builder. Only RTX is told: () leaves it at its default, 8.0 and later without Turing."""
    if not flavour.portable or not targets:
        return
    if not hasattr(config, "set_compute_capability"):
        raise UsageError(f"{flavour.label} {module.__version__} does not build for named targets: leave --target out")
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        # It answers False instead of raising, and the build then quietly takes another target.
        if not config.set_compute_capability(getattr(module.ComputeCapability, name.upper()), index):
            raise UsageError(f"{flavour.label} {module.__version__} refuses the target {name}; leave it out")
