"""The two TensorRTs, full and RTX, as data: one code path serves both, and asks the module itself what it offers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from rir_deploy.engines.tensorrt_api import TensorRt
from rir_deploy.errors import BackendError


@dataclass(frozen=True)
class Flavour:
    """``portable``: builds without a GPU, for GPUs that are named; otherwise for the GPU of this machine alone.

    ``refused`` maps options of `TensorRtOptions` that would have no effect, or do not work, to the reason.
    """

    backend: str
    module: str
    label: str
    engine_file: str
    install: str
    oldest: tuple[int, int]
    portable: bool
    refused: Mapping[str, str] = field(default_factory=dict)


TENSORRT = Flavour(
    backend="tensorrt",
    module="tensorrt",
    label="TensorRT",
    engine_file="engine.trt",
    install='python -m pip install "rir-deploy[nvidia]" (a Jetson has it from JetPack: see docs/jetson.md)',
    oldest=(10, 3),  # JetPack 6; before 10 a network was weakly typed
    portable=False,
)
RTX = Flavour(
    backend="tensorrt-rtx",
    module="tensorrt_rtx",
    label="TensorRT-RTX",
    engine_file="engine.rtx",
    install='python -m pip install "rir-deploy[rtx]"',
    oldest=(1, 0),
    portable=True,
    # Tried with RTX 1.7.1: levels 0 to 5 give the same bytes, the timing cache is a no-op since 1.2 by its own words,
    # the compatibility level too, and there is no lean runtime for it.
    refused={
        "builder_level": "TensorRT-RTX builds the same engine at every level",
        "timing_cache": "TensorRT-RTX times nothing while it builds, so a timing cache has no effect there",
        "version_compatible": "TensorRT-RTX's engines load in the version that built them only",
        "hardware": "TensorRT-RTX builds for the GPUs that --target names",
    },
)


def load_module(flavour: Flavour) -> TensorRt:
    """Import the runtime.

    Raises:
        BackendError: it is not installed (with the line that installs it), its libraries are missing, or it is too old.
    """
    try:
        module = importlib.import_module(flavour.module)
        found = str(module.__version__)  # type stubs alone make a module without one
    except (ImportError, OSError, AttributeError) as error:
        raise BackendError(
            f"{flavour.label} is not installed{_reason(flavour, error)}; run: {flavour.install}"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if version < flavour.oldest:
        oldest = ".".join(map(str, flavour.oldest))
        raise BackendError(f"{flavour.label} {found} is too old; install {oldest} or later: {flavour.install}")
    return cast(TensorRt, module)


def _reason(flavour: Flavour, error: Exception) -> str:
    """What is wrong with one that is there: a library that it misses, say."""
    if isinstance(error, ModuleNotFoundError) and error.name == flavour.module:
        return ""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f" as it should be ({line:.200})"
