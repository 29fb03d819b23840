"""Stand-ins for the runtimes of TensorRT's Python modules: an engine is an ONNX file, computed by onnx's reference
evaluator on what the stand-in of CUDA calls device memory.
"""

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.engines.fake_builder import Module
from tests.engines.fake_cuda import FakeCudart
from tests.engines.surface import Guard, inside


class FakeTensorRt(Module):
    """A module that builds and runs. ``did`` holds, in order, what was done to the engine."""

    def __init__(self, cudart: FakeCudart, version: str = "10.3.0") -> None:
        super().__init__(version)
        self.cudart = cudart
        self.loads = self.runs = self.refits = self.takes_strategy = True
        self.did: list[str] = []
        self.cache = b"kernels"
        self.make_plan = self._plan

    def _plan(self, config: Any) -> bytes:
        """What a build returns: the optimisation profile and the graph."""
        shapes = [profile.shapes for profile in config.profiles]
        return plan(onnx.load_from_string(self.log.parsed), shapes[0] if shapes else {})

    def nptype(self, dtype: str) -> type:
        return np.dtype(dtype).type

    def guard(self, kind: str, stand_in: Any) -> Any:
        return Guard(self.__version__, kind, stand_in)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(data: bytes) -> Any:
            self.did.append(f"host code {stand_in.engine_host_code_allowed}")
            if not self.loads or not data.startswith(b"{"):
                logger.log(SimpleNamespace(name="ERROR"), "IRuntime::x: Error Code 1: Serialization (wrong tag.)")
                return None
            return self.guard("ICudaEngine", FakeEngine(self, data))

        stand_in = SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False)
        return self.guard("Runtime", stand_in)

    def Refitter(self, engine: Any, logger: Any) -> Any:  # noqa: N802
        def refit() -> bool:
            self.did.append("refit")
            return True

        return self.guard("Refitter", SimpleNamespace(refit_cuda_engine=refit))

    def OnnxParserRefitter(self, refitter: Any, logger: Any) -> Any:  # noqa: N802
        def from_file(path: str) -> bool:
            self.did.append(f"weights from {path.rsplit('/', 1)[-1]}")
            return self.refits

        return self.guard("OnnxParserRefitter", SimpleNamespace(refit_from_file=from_file))


def plan(model: onnx.ModelProto, profile: dict[str, Any]) -> bytes:
    return json.dumps(profile).encode() + b"\n" + model.SerializeToString()


def doubler(inputs: int = 1) -> bytes:
    """A plan of y[n] = 2 x[n], summed over x's three values; batches of 1 to 8."""
    node = helper.make_node("ReduceSum", ["twice", "axes"], ["y"], keepdims=0)
    double = helper.make_node("Add", ["x", "x" if inputs == 1 else "z"], ["twice"])
    kind = onnx.TensorProto.FLOAT
    tensors = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in ("x", "z")[:inputs]]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    graph = helper.make_graph([double, node], "g", tensors, [helper.make_tensor_value_info("y", kind, ["n"])], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return plan(model, {"x": [[1, 3], [4, 3], [8, 3]]})


class FakeEngine:
    def __init__(self, module: FakeTensorRt, data: bytes) -> None:
        self.module = module
        head, _, model = data.partition(b"\n")
        self.profile = json.loads(head)
        self.model = onnx.load_from_string(model)
        weights = {tensor.name for tensor in self.model.graph.initializer}
        self.inputs = {value.name: value for value in self.model.graph.input if value.name not in weights}
        self.tensors = {**self.inputs, **{value.name: value for value in self.model.graph.output}}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self.module.TensorIOMode
        return mode.INPUT if name in self.inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return str(helper.tensor_dtype_to_np_dtype(self.tensors[name].type.tensor_type.elem_type))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = self.tensors[name].type.tensor_type.shape.dim
        return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name in self.inputs, profile) == (True, 0)
        return [tuple(shape) for shape in self.profile[name]]

    def create_execution_context(self, config: Any = None) -> Any:
        if config is not None:
            self.module.did.append(f"context with strategy {config.cuda_graph_strategy.name}")
        return self.module.guard("IExecutionContext", FakeContext(self))

    def create_runtime_config(self) -> Any:
        return self.module.guard("IRuntimeConfig", FakeConfig(self.module))

    def create_engine_inspector(self) -> Any:
        inspector = SimpleNamespace(execution_context=None)
        inspector.get_engine_information = lambda format: (
            f"{format.name} at {inside(inspector.execution_context).shape}"
        )
        return self.module.guard("EngineInspector", inspector)


class FakeConfig:
    """RTX's settings of a context."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._strategy = module.CudaGraphStrategy.DISABLED

    @property
    def cuda_graph_strategy(self) -> Any:
        return self._strategy

    @cuda_graph_strategy.setter
    def cuda_graph_strategy(self, strategy: Any) -> None:
        if self.module.takes_strategy:
            self._strategy = strategy

    def create_runtime_cache(self) -> Any:
        def deserialize(data: bytes) -> bool:
            self.module.did.append(f"cache of {len(data)} bytes")
            return data != b"of another GPU"

        stand_in = SimpleNamespace(deserialize=deserialize, serialize=lambda: self.module.cache)
        return self.module.guard("IRuntimeCache", stand_in)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.module.did.append("cache set")
        return True


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.module = engine, engine.module
        (name,) = list(engine.inputs)[:1]
        fixed = engine.get_tensor_shape(name)
        self.shape: tuple[int, ...] | None = None if -1 in fixed else fixed
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        held = self.module.cudart.in_graph(self.addresses.values())
        assert not held, "a context is changed under the graph that was captured from it"
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        if not low[0] <= shape[0] <= high[0]:
            return False
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None, "outputs have no shape before the input has"
        return tuple(self.shape[0] if size == -1 else size for size in self.engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self.module.cudart.memory
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if not self.module.runs:
            return False
        arrays = {name: self._view(name, address) for name, address in self.addresses.items()}

        def work() -> None:
            compute(self.engine, arrays)
            self.module.cudart.now_ms += self.module.cudart.compute_ms

        if self.module.cudart.capturing is not None:
            self.module.cudart.captured |= set(self.addresses.values())
        self.module.cudart.submit(stream, work)
        self.module.did.append("enqueue")
        return True

    def _view(self, name: str, address: int) -> np.ndarray[Any, Any]:
        """The tensor in device memory, as the context knows its shape and address now."""
        dtype, shape = np.dtype(self.engine.get_tensor_dtype(name)), self.get_tensor_shape(name)
        size = dtype.itemsize * int(np.prod(shape))
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def compute(engine: FakeEngine, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    feeds = {name: arrays[name].copy() for name in engine.inputs}
    results = ReferenceEvaluator(engine.model).run(None, feeds)
    for value, result in zip(engine.model.graph.output, results, strict=True):
        arrays[value.name][...] = result
