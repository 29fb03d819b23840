"""Stand-ins for TensorRT's Python modules: each offers exactly what its version documents, and records its calls.

Sources: the API references and migration guides of TensorRT 10.3, 10.16 and 11.4 and of RTX 1.7.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class _Base:
    def __init__(self, *args: object) -> None: ...


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}

    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        self.shapes[name] = (low, opt, high)


class Config:
    """What every version has."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.profiles: list[Profile] = []
        self.cleared: list[Any] = []
        self.profiling_verbosity: Any = None
        self.progress_monitor: Any = None

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)


class TargetConfig(Config):
    """RTX: names its targets. One that the module's ``refused`` lists is answered with False, not with an exception."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.num_compute_capabilities = 0
        self.targets: dict[int, str] = {}

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        if index >= self.num_compute_capabilities or capability.name in self.module.refused:
            return False
        self.targets[index] = capability.name
        return True


def fake(version: str, creation_flags: dict[str, int], builder_flags: list[str], config: type[Config]) -> Any:
    """A module. ``log`` holds what was created; ``plan`` is what a build returns."""
    module = SimpleNamespace(
        __version__=version,
        ILogger=_Base,
        IProgressMonitor=_Base,
        NetworkDefinitionCreationFlag=SimpleNamespace(**creation_flags),
        BuilderFlag=SimpleNamespace(**{name: name for name in builder_flags}),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        log=SimpleNamespace(flags=None, config=None, parsed=b""),
        plan=b"plan",
        error="",
        parse_errors=[],
        refused=(),
        steps=0,
    )
    module.Builder = lambda logger: _builder(module, logger, config)
    module.OnnxParser = lambda network, logger: _parser(module)
    return Hashable(module)


class Hashable:
    """A namespace is not hashable, a module is."""

    def __init__(self, namespace: SimpleNamespace) -> None:
        self.__dict__ = namespace.__dict__


def _builder(module: Any, logger: Any, config: type[Config]) -> Any:
    def create_network(flags: int) -> Any:
        module.log.flags = flags
        return SimpleNamespace()

    def create_builder_config() -> Config:
        module.log.config = config(module)
        return module.log.config

    def build(network: Any, config: Config) -> Any:
        monitor = config.progress_monitor
        if module.steps and monitor is not None:
            monitor.phase_start("Building", None, module.steps)
            for step in range(module.steps):
                if not monitor.step_complete("Building", step):
                    return None
            monitor.phase_finish("Building")
        if module.error:
            logger.log(SimpleNamespace(name="ERROR"), module.error)
            return None
        return module.plan

    return SimpleNamespace(
        create_network=create_network,
        create_builder_config=create_builder_config,
        create_optimization_profile=Profile,
        build_serialized_network=build,
    )


def _parser(module: Any) -> Any:
    def parse(data: bytes) -> bool:
        module.log.parsed = data
        return not module.parse_errors

    return SimpleNamespace(parse=parse, num_errors=len(module.parse_errors), get_error=lambda i: module.parse_errors[i])


def parse_error(desc: str, node: int, name: str = "", operator: str = "", code: str = "UNSUPPORTED_NODE") -> Any:
    return SimpleNamespace(
        desc=lambda: desc,
        node=lambda: node,
        node_name=lambda: name,
        node_operator=lambda: operator,
        code=lambda: SimpleNamespace(name=code),
    )


def tensorrt_10_3() -> Any:
    flags = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    return fake("10.3.0", flags, ["FP16", "INT8", "TF32"], Config)


def tensorrt_10_16() -> Any:
    flags = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1, "PREFER_AOT_PYTHON_PLUGINS": 2}
    return fake("10.16.0", flags, ["FP16", "INT8", "TF32"], Config)


def tensorrt_11() -> Any:
    return fake("11.4.1", {"STRONGLY_TYPED": 0, "PREFER_AOT_PYTHON_PLUGINS": 1}, ["TF32"], Config)


def tensorrt_later() -> Any:
    """After the deprecated flag is gone."""
    return fake("11.9.0", {}, [], Config)


def rtx() -> Any:
    module = fake("1.7.1", {"STRONGLY_TYPED": 0}, ["TF32"], TargetConfig)
    capability = enum.Enum("ComputeCapability", ["NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"])
    module.ComputeCapability = capability
    return module


class FakeCudart:
    """CUDA's runtime on host memory. ``fail`` names a function that answers with an error."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.fail = ""
        self.allocations = 0
        self.synchronized = 0

    def _status(self, name: str) -> int:
        return 2 if name == self.fail else 0

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"out of memory"

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        self.streams.add(77)
        return self._status("cudaStreamCreate"), 77

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        self.streams.remove(stream)
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        assert stream in self.streams
        self.synchronized += 1
        return (self._status("cudaStreamSynchronize"),)

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:  # noqa: N802
        if self.fail == "cudaMalloc":
            return 2, None
        self.allocations += 1
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.memory[address]
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        assert stream in self.streams
        device = target if kind == 1 else source
        assert size <= len(self.memory[device])
        ctypes.memmove(target, source, size)
        return (self._status("cudaMemcpyAsync"),)


class FakeRuntime:
    """A module that runs one engine: y[n] = 2 x[n], summed over x's three values; batches of 1 to 8."""

    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    ILogger = _Base
    __version__ = "10.3.0"

    def __init__(self, cudart: FakeCudart) -> None:
        self.cudart = cudart
        self.loads = self.runs = True
        self.alive: list[str] = []
        self.inputs = ("x",)

    def nptype(self, dtype: str) -> type:
        return {"float": np.float32}[dtype]

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(data: bytes) -> Any:
            if not self.loads:
                logger.log(SimpleNamespace(name="ERROR"), "IRuntime::x: Error Code 1: Serialization (wrong tag.)")
                return None
            return FakeEngine(self)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class FakeEngine:
    num_io_tensors = 2

    def __init__(self, module: FakeRuntime) -> None:
        self.module = module

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.module.inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3) if name == "x" else (-1,)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("x", 0)
        return [(1, 3), (4, 3), (8, 3)]

    def create_execution_context(self) -> FakeContext:
        return FakeContext(self.module)

    def create_engine_inspector(self) -> Any:
        inspector = SimpleNamespace(execution_context=None)
        inspector.get_engine_information = lambda format: f"{format} at {inspector.execution_context.shape}"
        return inspector


class FakeContext:
    def __init__(self, module: FakeRuntime) -> None:
        self.module = module
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None, "outputs have no shape before the input has"
        return self.shape[:1]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self.module.cudart.memory
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream in self.module.cudart.streams
        if not self.module.runs:
            return False
        assert self.shape is not None
        count = self.shape[0]
        x, y = ((ctypes.c_float * size).from_address(self.addresses[n]) for n, size in (("x", 3 * count), ("y", count)))
        for i in range(count):
            y[i] = 2 * sum(x[3 * i : 3 * i + 3])
        return True
