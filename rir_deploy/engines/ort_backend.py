"""ONNX Runtime as a backend, the provider a parameter. Its engine is the ONNX file itself: optimised dumps are bound to
the machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from rir_deploy.engines.base import GRAPH_NAME, Availability, BuildOptions, Built
from rir_deploy.engines.folder import nothing_left
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.graph import graph_precision
from rir_deploy.engines.manifest import Manifest
from rir_deploy.engines.ort_provider import OrtProvider, load_runtime, runtime_version
from rir_deploy.engines.ort_session import OrtSession
from rir_deploy.engines.tensorrt_options import refuse_all_options
from rir_deploy.errors import BackendError, UsageError
from rir_deploy.file_system import scratch_folder
from rir_deploy.tensorrt_rules import check_tensorrt_graph

_FLOAT_CONVS = ("Conv", "FusedConv", "NhwcFusedConv", "NhwcConv")
_INTEGER_CONVS = ("QLinearConv", "ConvInteger")


@dataclass(frozen=True)
class OrtBackend:
    provider: OrtProvider

    @property
    def name(self) -> str:
        return self.provider.backend

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.provider.precisions

    def availability(self) -> Availability:
        """For a GPU's provider by running it: that it is listed says only that it was compiled in."""
        version, install = runtime_version(self.provider), self.provider.install
        try:
            load_runtime(self.provider)
            if self.provider.gpu:
                self._try()
        except BackendError as error:
            return Availability(self.name, False, False, version, str(error), install)
        return Availability(self.name, True, True, version, "", install)

    def check(self, precision: str | None, options: BuildOptions) -> None:
        label = self.provider.label
        if precision is not None and precision not in self.precisions:
            raise UsageError(self.provider.refused[precision])
        if options.targets:
            where = "the GPU that is there" if self.provider.gpu else "any CPU"
            raise UsageError(f"{label} runs on {where}: --target does not apply to it; leave it out")
        refuse_all_options(options.tensorrt, label)

    def build(self, model: ir.Model, folder: Path, options: BuildOptions) -> Built:
        """Open the graph once: an engine that does not load is not built. `realized` holds what it runs in.

        Raises:
            UsageError, BackendError, InputError: as `check` and `OrtSession` do.
        """
        self.check(graph_precision(model), options)
        if self.provider.plugin:
            check_tensorrt_graph(model)
        runtime = load_runtime(self.provider)
        path = folder / GRAPH_NAME
        with nothing_left(folder):
            if not path.exists():
                ir.save(model, path)
            realized = self._open_once(path)
        return Built(path.name, self.name, str(runtime.__version__), realized=realized)

    def mismatch(self, manifest: Manifest) -> str | None:
        """Nothing in an ONNX file is bound to a machine or a version."""
        return None

    def import_runtime(self) -> None:
        load_runtime(self.provider)

    def load(
        self,
        engine: Path,
        threads: int | None = None,
        *,
        exclusive: bool = False,
        gpu: GpuOptions = GpuOptions(),
        streams: int | None = 1,
    ) -> OrtSession:
        if gpu != GpuOptions():
            raise UsageError(f"CUDA graphs and runtime caches are TensorRT's: {self.provider.label} has none here")
        return OrtSession(self.provider, engine, threads, exclusive, streams=streams)

    def _try(self) -> None:
        tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "try", tensors[:1], tensors[1:])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        with scratch_folder() as folder:
            onnx.save(model, folder / GRAPH_NAME)
            with OrtSession(self.provider, folder / GRAPH_NAME) as session:
                session.run(np.ones((1, 1), dtype=np.float32))

    def _open_once(self, path: Path) -> dict[str, object]:
        if self.provider.gpu:  # nothing is left to the CPU, and the provider runs the graph as it is
            with OrtSession(self.provider, path) as session:
                return {"runs_on": session.runs_on}
        with scratch_folder() as temporary:
            optimized = temporary / "optimized.onnx"
            with OrtSession(self.provider, path, optimized=optimized) as session:
                return {"conv": executed_convs(optimized), "runs_on": session.runs_on}


def executed_convs(optimized: Path) -> dict[str, int]:
    """How many convolutions run in each type, {"i8": 17, "f32": 1}, by the graph that ONNX Runtime made of a model.

    It fuses Q/DQ into integer convolutions where it has them; what it could not fuse stays a float one.
    """
    graph = onnx.load(optimized, load_external_data=False).graph
    half = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    kinds = Counter(
        "i8" if node.op_type in _INTEGER_CONVS else "f16" if node.input[1] in half else "f32"
        for node in graph.node
        if node.op_type in (*_FLOAT_CONVS, *_INTEGER_CONVS)
    )
    return dict(sorted(kinds.items()))
