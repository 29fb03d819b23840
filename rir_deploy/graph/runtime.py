"""ONNX Runtime as a module, wherever it is imported from."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from rir_deploy.verbosity import is_verbose

_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: (.*)")
_PLACE = re.compile(r"^\S+\.(?:h|cc|cpp|cu):\d+ (?:[\w:]+(?:<[^>]*>)?(?:\([^)]*\))? )?")


def import_runtime() -> Any:
    """The module `onnxruntime`, without its telemetry.

    From 1.32 on it tells Microsoft of every session, and keeps an identifier and a database in the user's home. It
    reads the variable once, when it is imported; a user who sets it to something else has asked for that.

    Raises:
        ImportError, OSError: it is not installed, or its library does not load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    runtime = importlib.import_module("onnxruntime")
    if not hasattr(runtime, "InferenceSession"):  # a folder that an uninstalled package leaves behind imports as well
        raise ImportError("the folder 'onnxruntime' holds no package", name="onnxruntime")
    return runtime


def log_severity() -> int:
    """For sessions: warnings and up where a user asked for them, else nothing. An error is raised as well as logged,
    and in a log it would bring names out of the model to the terminal as they are.
    """
    return 2 if is_verbose() else 4


def first_line(error: Exception) -> str:
    """The start of what a runtime says, without the number of ONNX Runtime's status and the place in its code."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    found = _NODE.match(line)
    return line if found is None else f"{found[1]} '{found[2]}': {_PLACE.sub('', found[3])}"
