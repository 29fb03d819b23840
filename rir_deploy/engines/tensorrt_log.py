"""What TensorRT says while it works: its errors as a user can read them, and the layers that it made."""

from __future__ import annotations

import re
from collections import deque
from functools import cache
from typing import Any

from rir_deploy.engines.tensorrt_api import TensorRt

_LAYERS = "Layers:"


class Heard:
    """The last errors, and the builder's last list of layers."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=100)
        self.layers = ""

    def hear(self, severity: str, text: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text)
        elif text.startswith(_LAYERS):
            self.layers = text

    def forget(self) -> None:
        self.errors.clear()
        self.layers = ""

    def last_error(self) -> str:
        """The last error without its source locations; forgets the rest."""
        text = str(self.errors[-1]) if self.errors else "no reason given"
        self.errors.clear()
        return clean(text)


@cache
def logger_of(module: TensorRt) -> Any:
    """The one logger of a TensorRT module; ``heard`` holds what it heard, and it prints nothing.

    One for the process, because TensorRT keeps the first that it is given and may ignore any other ("ILogger" in its
    API reference): an error of a second build would otherwise reach the logger of the first.
    """

    base: Any = module.ILogger

    class Collector(base):  # type: ignore[misc]  # its type is known at run time only
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.heard = Heard()

        def log(self, severity: Any, text: str) -> None:
            self.heard.hear(severity.name, text)

    return Collector()


def clean(text: str) -> str:
    """A TensorRT message as a user can read it.

    "IBuilder::build: Error Code 4: API Usage Error (no profile. In validate at /_src/x.cpp:4)" becomes
    "API Usage Error: no profile".
    """
    inner = re.search(r"Error Code \d+: ([^(]*)\((.*)\)\s*$", text, re.DOTALL)
    if inner:
        text = f"{inner[1].strip()}: {inner[2]}"
    text = re.sub(r"\s*In \S+ at \S+?:\d+\)?", "", text)
    text = re.sub(r"(?:Myelin: )?\[\w+\.(?:cpp|h):[\w: ]*\]\s*|^\w+\.cpp:\d+:\s*", "", text)
    return " ".join(text.split()).rstrip(" .")
