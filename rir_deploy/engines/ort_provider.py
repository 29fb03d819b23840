"""ONNX Runtime's execution providers, and how each is brought in.

`get_available_providers` says what was compiled in, not what works, and a session whose provider does not load goes to
the CPU with a warning: so a provider is taken for what its session says, and the CPU is shut off where it is not meant.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rir_deploy.engines.tensorrt_gpu import NoGpu, probe_gpu
from rir_deploy.errors import BackendError
from rir_deploy.graph.runtime import first_line, import_runtime, log_severity

_INSTALL = "python -m pip install onnxruntime"  # not [host], which brings torch: a device wants the runtime alone


@dataclass(frozen=True)
class OrtProvider:
    """A provider as a backend of its own.

    Attributes:
        backend: its name here.
        provider: its name in ONNX Runtime.
        label: what messages call it.
        install: the line that brings it.
        precisions: of the graphs that it computes as they say.
        refused: why it does not take the other precisions.
        options: ONNX Runtime's options of the provider.
        gpu: it runs on an NVIDIA GPU, and nothing may run elsewhere.
        plugin: the Python package that holds it, where ONNX Runtime itself does not.
        environment: variables that its libraries read once, when they are loaded; one that the user has set stays.
    """

    backend: str
    provider: str
    label: str
    install: str = _INSTALL
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    refused: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    plugin: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def load_runtime(provider: OrtProvider) -> Any:
    """The module `onnxruntime`, with the provider in it.

    Raises:
        BackendError: it, the provider or the GPU is not here, with the way out.
    """
    try:
        ort = import_runtime()
    except (ImportError, OSError) as error:
        raise BackendError(f"ONNX Runtime is not installed; run: {provider.install}") from error
    if not provider.gpu:
        return ort
    for name, value in provider.environment.items():
        os.environ.setdefault(name, value)
    if provider.plugin:
        plugin = _load_plugin(provider)
    elif provider.provider not in ort.get_available_providers():
        raise BackendError(
            f"this onnxruntime has no {provider.provider}; uninstall it, since the two share one name, and run: "
            f"{provider.install}"
        )
    gpu = probe_gpu()
    if isinstance(gpu, NoGpu):
        raise BackendError(f"{provider.label} needs an NVIDIA GPU: {gpu.reason}")
    ort.set_default_logger_severity(log_severity())
    if provider.plugin:
        _register(ort, provider, plugin)
    elif hasattr(ort, "preload_dlls"):  # CUDA's libraries out of NVIDIA's Python packages, where those are
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    return ort


def runtime_version(provider: OrtProvider) -> str | None:
    """ONNX Runtime's version, whether or not the provider works; None where it is not installed."""
    try:
        return str(import_runtime().__version__)
    except (ImportError, OSError):
        return None


def plugin_devices(ort: Any, provider: OrtProvider) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == provider.provider]


def _load_plugin(provider: OrtProvider) -> Any:
    try:
        return importlib.import_module(provider.plugin)
    except (ImportError, OSError) as error:
        raise BackendError(f"{provider.label} is not installed; run: {provider.install}") from error


def _register(ort: Any, provider: OrtProvider, plugin: Any) -> None:
    """Once a process: a second registration is an error."""
    if not hasattr(ort, "register_execution_provider_library"):
        raise BackendError(f"ONNX Runtime {ort.__version__} takes no plugins; install 1.24 or later: {_INSTALL}")
    try:
        if not plugin_devices(ort, provider):
            ort.register_execution_provider_library(provider.provider, plugin.get_library_path())
    except Exception as error:  # onnxruntime raises its own family of exceptions
        if "already registered" not in str(error):  # as one that found no device is
            raise BackendError(f"{provider.label} does not load: {first_line(error)}; run doctor") from error
    if not plugin_devices(ort, provider):
        raise BackendError(f"{provider.label} finds no GPU that it takes (Ampere or later); run doctor")
