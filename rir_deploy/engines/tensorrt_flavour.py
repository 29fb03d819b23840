"""The two TensorRTs, full and RTX, as data: one code path serves both, and asks the module itself what it offers."""

from __future__ import annotations

import importlib
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from rir_deploy.errors import BackendError


@dataclass(frozen=True)
class Flavour:
    """``portable``: builds without a GPU, for GPUs that are named; otherwise for the GPU of this machine alone."""

    backend: str
    module: str
    label: str
    engine_file: str
    install: str
    oldest: tuple[int, int]
    portable: bool


TENSORRT = Flavour(
    backend="tensorrt",
    module="tensorrt",
    label="TensorRT",
    engine_file="engine.trt",
    install='python -m pip install "rir-deploy[nvidia]"',
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
)


def load_module(flavour: Flavour) -> Any:
    """Import the runtime.

    Raises:
        BackendError: it is not installed (with the line that installs it), its libraries are missing, or it is too old.
    """
    try:
        module = importlib.import_module(flavour.module)
    except (ImportError, OSError) as error:
        raise BackendError(f"{flavour.label} is not installed; run: {flavour.install}") from error
    version = tuple(int(part) for part in re.findall(r"\d+", str(module.__version__))[:2])
    if version < flavour.oldest:
        oldest = ".".join(map(str, flavour.oldest))
        raise BackendError(
            f"{flavour.label} {module.__version__} is too old; install {oldest} or later: {flavour.install}"
        )
    return module


@cache
def logger_of(module: Any) -> Any:
    """The one logger of a TensorRT module, which collects what goes wrong and prints nothing.

    One for the process, because TensorRT keeps the first that it is given and may ignore any other ("ILogger" in its
    API reference): an error of a second build would otherwise reach the logger of the first.
    """

    class Collector(module.ILogger):  # type: ignore[misc]  # its type is known at run time only
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=100)

        def log(self, severity: Any, text: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(text)

    return Collector()


def last_error(logger: Any) -> str:
    """The last error that the logger heard of, without its source locations; forgets the rest."""
    text = str(logger.errors[-1]) if logger.errors else "no reason given"
    logger.errors.clear()
    return clean(text)


def clean(text: str) -> str:
    """A TensorRT message as a user can read it.

    "IBuilder::build: Error Code 4: API Usage Error (no profile. In validate at /_src/x.cpp:4)" becomes
    "API Usage Error: no profile".
    """
    inner = re.search(r"Error Code \d+: ([^(]*)\((.*)\)\s*$", text, re.DOTALL)
    if inner:
        text = f"{inner[1].strip()}: {inner[2]}"
    text = re.sub(r"\s*In \S+ at \S+?:\d+\)?", "", text)
    text = re.sub(r"(?:Myelin: )?\[\w+\.cpp:[\w: ]*\]\s*|^\w+\.cpp:\d+:\s*", "", text)
    return " ".join(text.split()).rstrip(" .")
