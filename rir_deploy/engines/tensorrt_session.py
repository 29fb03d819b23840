"""A TensorRT engine on the GPU. Not yet run on a GPU: written to NVIDIA's Python API reference (10.3 to 11.4, RTX 1.7),
and tested against stand-ins that check the order of the calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rir_deploy.engines.base import Array, SessionBase, TensorSpec, check_batch
from rir_deploy.engines.cuda_buffers import CudaBuffers
from rir_deploy.engines.tensorrt_flavour import Flavour, last_error, logger_of
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.errors import BackendError, InputError


class TensorRtSession(SessionBase):
    """One execution context, one stream, buffers as large as the largest batch so far. Closing frees all of it.

    Raises:
        BackendError: the engine is for another GPU or another TensorRT, or the GPU lacks the memory.
        InputError: the engine has not exactly one input.
    """

    def __init__(self, module: Any, flavour: Flavour, gpu: Gpu, engine: Path, cudart: Any) -> None:
        self._module, self._flavour, self._gpu = module, flavour, gpu
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._buffers = CudaBuffers(cudart)  # first: it makes the CUDA context that the engine lives in
        try:
            self._open(engine)
            self._input, self._outputs = self._read_specs()
        except BaseException:
            self.close()
            raise

    @property
    def runs_on(self) -> str:
        return f"{self._flavour.backend} {self._module.__version__} {self._gpu.name} ({self._gpu.target})"

    def run(self, batch: Array) -> dict[str, Array]:
        """One synchronous request with both copies."""
        check_batch(batch, self._input)
        batch = np.ascontiguousarray(batch)
        self._set_shape(batch.shape)
        results = {spec.name: np.empty(self._output_shape(spec.name), spec.dtype) for spec in self._outputs}
        for name, result in results.items():
            self._context.set_tensor_address(name, self._buffers.reserve(name, result.nbytes))
        self._buffers.upload(self._input.name, batch)
        self._context.set_tensor_address(self._input.name, self._buffers.reserve(self._input.name, batch.nbytes))
        try:
            if not self._context.execute_async_v3(self._buffers.stream):
                raise BackendError(f"the engine did not run: {last_error(logger_of(self._module))}; build it again")
            for name, result in results.items():
                self._buffers.download(name, result)
        finally:
            self._buffers.synchronize()  # also on failure: copies under way still read the batch
        return results

    def layers(self) -> str:
        """The inspector's JSON, at the batch size that the engine is tuned for: without one it names no formats."""
        if self._input.shape[0] is None:
            opt = tuple(self._engine.get_tensor_profile_shape(self._input.name, 0)[1])
            self._context.set_input_shape(self._input.name, opt)
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._module.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Context, engine, runtime, in this order; the stream and buffers that they use go last."""
        self._context = None
        self._engine = None
        self._runtime = None
        self._buffers.close()

    def _open(self, path: Path) -> None:
        logger = logger_of(self._module)
        logger.errors.clear()
        self._runtime = self._module.Runtime(logger)
        # engine_host_code_allowed keeps its default, False: a plan may not bring host code of its own.
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is not None:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(
                f"'{path}' does not load with {self._flavour.label} {self._module.__version__} on {self._gpu.name} "
                f"({self._gpu.target}): {last_error(logger)}; build it on this machine or for this target"
            )

    def _read_specs(self) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        is_input = self._module.TensorIOMode.INPUT
        inputs = [spec for name, spec in specs.items() if self._engine.get_tensor_mode(name) == is_input]
        if len(inputs) != 1:
            raise InputError(f"the engine has {len(inputs)} inputs; build it from a model with one image input")
        return inputs[0], tuple(spec for spec in specs.values() if spec is not inputs[0])

    def _spec(self, name: str) -> TensorSpec:
        dtype = np.dtype(self._module.nptype(self._engine.get_tensor_dtype(name)))
        shape = tuple(None if size < 0 else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, str(dtype), shape)

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        if self._input.shape[0] is not None:
            return
        low, _, high = (dims[0] for dims in self._engine.get_tensor_profile_shape(self._input.name, 0))
        if not low <= shape[0] <= high:
            raise InputError(
                f"the engine takes batches of {low} to {high}, not {shape[0]}; build it with a wider --batch"
            )
        if not self._context.set_input_shape(self._input.name, shape):
            raise BackendError(f"the engine refuses the shape {shape}: {last_error(logger_of(self._module))}")

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise InputError(f"the output '{name}' has a shape that depends on the data; engines here have fixed ones")
        return shape
