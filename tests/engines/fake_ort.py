"""ONNX Runtime with NVIDIA's providers, on a machine that has neither: sessions compute on the CPU and answer as the
provider's would. What it says where a provider does not load was seen from onnxruntime-gpu 1.31 without a GPU.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime

CPU = "CPUExecutionProvider"
FALLBACK = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)


class FakeOrt:
    """``loads``: the provider's libraries are there. ``on_cpu``: the names of nodes that it leaves to the CPU."""

    __version__ = onnxruntime.__version__

    def __init__(self, provider: str, *, plugin: bool = False) -> None:
        self.provider, self.plugin = provider, plugin
        self.loads = True
        self.on_cpu: tuple[str, ...] = ()
        self.library = ""
        self.registered = 0
        self.has_device = True
        self.provider_options: dict[str, str] = {}
        self.severity = 2

    def get_available_providers(self) -> list[str]:
        return [CPU] if self.plugin else [self.provider, CPU]

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if not self.loads:
            raise RuntimeError(f"Failed to load library {path}: libcuda.so.1: cannot open shared object file\nmore")
        if self.registered:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : EP library is already registered under {name}")
        assert (name, path) == (self.provider, "plugin.so")
        self.registered += 1

    def get_ep_devices(self) -> list[Any]:
        devices = [SimpleNamespace(ep_name=CPU)]
        return [*devices, SimpleNamespace(ep_name=self.provider)] if self.registered and self.has_device else devices

    def SessionOptions(self) -> Any:  # noqa: N802
        return FakeOptions()

    def InferenceSession(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: N802
        return FakeSession(self, *arguments, **keywords)


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[Any] = []
        self.log_severity_level = 2
        self.intra_op_num_threads = 0

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        assert devices, "Must provide one or more OrtEpDevice instances."
        self.devices = devices


class FakeSession:
    def __init__(
        self, module: FakeOrt, path: str, options: FakeOptions, providers: Any = None, enable_fallback: int = 1
    ) -> None:
        wanted = options.devices[0].ep_name if options.devices else providers[0][0]
        assert wanted == module.provider
        module.provider_options = {} if providers is None else providers[0][1]
        real = onnxruntime.SessionOptions()
        real.log_severity_level = 4
        real.intra_op_num_threads = options.intra_op_num_threads
        self._session = onnxruntime.InferenceSession(path, real, providers=[CPU])
        falls_back = not module.loads or bool(module.on_cpu)
        if falls_back and options.entries.get("session.disable_cpu_ep_fallback") == "1":
            raise RuntimeError(FALLBACK)
        self._providers = [module.provider, CPU] if module.loads else [CPU]
        self._records = options.entries.get("session.record_ep_graph_assignment_info") == "1"
        self._on_cpu = module.on_cpu

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        assert self._records
        nodes = [SimpleNamespace(name=name, op_type="Conv") for name in self._on_cpu]
        return [
            SimpleNamespace(ep_name=self._providers[0], get_nodes=list),
            SimpleNamespace(ep_name=CPU, get_nodes=lambda: nodes),
        ]
