"""The runtimes an engine can be built for. A new backend is one file and one row here."""

from __future__ import annotations

import importlib
from typing import cast

from rir_deploy.engines.base import Backend
from rir_deploy.errors import unknown_name

BACKENDS: dict[str, str] = {
    "onnxruntime": "rir_deploy.engines.onnxruntime",
    "onnxruntime-cuda": "rir_deploy.engines.onnxruntime_cuda",
    "onnxruntime-rtx": "rir_deploy.engines.onnxruntime_rtx",
    "openvino": "rir_deploy.engines.openvino",
    "tensorrt": "rir_deploy.engines.tensorrt",
    "tensorrt-rtx": "rir_deploy.engines.tensorrt_rtx",
}


def get_backend(name: str) -> Backend:
    """The backend of that name; loads its module but no runtime. UsageError for an unknown name."""
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    return cast(Backend, importlib.import_module(BACKENDS[name]).BACKEND)
