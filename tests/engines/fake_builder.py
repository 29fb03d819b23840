"""Stand-ins for the builders of TensorRT's Python modules: each offers what the real module of its version does, and
records its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import onnx

from tests.engines.surface import RTX_VERSION, Guard, enums, inside


class Base:
    def __init__(self, *args: object) -> None: ...


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}

    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        self.shapes[name] = (low, opt, high)


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data


class Config:
    """The builder's configuration. A target that the module's ``refused`` lists is answered with False."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.profiles: list[Profile] = []
        self.flags: set[str] = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiling_verbosity: Any = None
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = module.HardwareCompatibilityLevel.NONE
        self.cache: TimingCache | None = None
        self.num_compute_capabilities = 0
        self.targets: dict[int, str] = {}

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(inside(profile))
        return len(self.profiles) - 1

    def set_flag(self, flag: Any) -> None:
        if flag.name not in self.module.refused:
            self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self.flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def create_timing_cache(self, data: bytes) -> Any:
        return None if data == b"garbage" else Guard(self.module.__version__, "ITimingCache", TimingCache(data))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return bool(inside(cache).data != b"another GPU")

    def get_timing_cache(self) -> Any:
        return self.cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        if index >= self.num_compute_capabilities or capability.name in self.module.refused:
            return False
        self.targets[index] = capability.name
        return True


class Module:
    """A module that builds.

    ``log`` holds what was created; ``make_plan`` makes what a build returns, after ``says`` went to the logger.
    """

    # Of the enumerations, which are set by name, those that are read here.
    HardwareCompatibilityLevel: Any
    TensorIOMode: Any

    def __init__(self, version: str) -> None:
        self.__version__ = version
        self.ILogger = self.IProgressMonitor = Base
        self.__dict__.update(enums(version))
        self.log = SimpleNamespace(flags=None, config=None, parsed=b"")
        self.make_plan: Callable[[Config], bytes] = lambda config: b"plan"
        self.error = self.says = ""
        self.parse_errors: list[Any] = []
        self.refused: tuple[str, ...] = ()
        self.steps = 0

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        return Guard(self.__version__, "Builder", Builder(self, logger))

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return Guard(self.__version__, "OnnxParser", Parser(self))


class Builder:
    def __init__(self, module: Module, logger: Any) -> None:
        self.module, self.logger = module, logger

    def create_network(self, flags: int) -> Any:
        self.module.log.flags = flags
        return SimpleNamespace()

    def create_builder_config(self) -> Any:
        self.module.log.config = Config(self.module)
        return Guard(self.module.__version__, "IBuilderConfig", self.module.log.config)

    def create_optimization_profile(self) -> Any:
        return Guard(self.module.__version__, "IOptimizationProfile", Profile())

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        module, monitor = self.module, config.progress_monitor
        if module.steps and monitor is not None:
            monitor.phase_start("Building", None, module.steps)
            for step in range(module.steps):
                if not monitor.step_complete("Building", step):
                    return None
            monitor.phase_finish("Building")
        if module.says:
            self.logger.log(SimpleNamespace(name="VERBOSE"), module.says)
        if module.error:
            self.logger.log(SimpleNamespace(name="ERROR"), module.error)
            return None
        if inside(config).cache is not None:
            inside(inside(config).cache).data += b" and more"
        return module.make_plan(inside(config))


class Parser:
    def __init__(self, module: Module) -> None:
        self.module = module

    @property
    def num_errors(self) -> int:
        return len(self.module.parse_errors)

    def parse(self, data: bytes) -> bool:
        self.module.log.parsed = data
        for index, node in enumerate(onnx.load_from_string(data).graph.node):
            if node.domain:
                self.module.parse_errors = [parse_error("Plugin not found", index, node.name, node.op_type)]
        return not self.module.parse_errors

    def get_error(self, index: int) -> Any:
        return Guard(self.module.__version__, "ParserError", self.module.parse_errors[index])


def parse_error(desc: str, node: int, name: str = "", operator: str = "", code: str = "UNSUPPORTED_NODE") -> Any:
    return SimpleNamespace(
        desc=lambda: desc,
        node=lambda: node,
        node_name=lambda: name,
        node_operator=lambda: operator,
        code=lambda: SimpleNamespace(name=code),
    )


def rtx() -> Module:
    return Module(RTX_VERSION)


def later() -> Module:
    """After the deprecated flag is gone, and TF32 with it."""
    module = Module("11.4.0")
    module.__dict__["NetworkDefinitionCreationFlag"] = SimpleNamespace()
    module.__dict__["BuilderFlag"] = SimpleNamespace()
    return module
