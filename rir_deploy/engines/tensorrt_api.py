"""The part of TensorRT's Python module that is called here, with the types of the `tensorrt-stubs` package.

With those stubs on mypy's path every call is checked against TensorRT 10.13, whose signatures 10.3, 10.16, 11.4 and RTX
1.7 share as far as they are called here; without them the types are Any. What only some versions offer is typed Any and
asked for with "hasattr".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import tensorrt as trt


class TensorRt(Protocol):
    """The module `tensorrt` or `tensorrt_rtx`."""

    __version__: str
    Builder: type[trt.Builder]
    BuilderFlag: type[trt.BuilderFlag]
    HardwareCompatibilityLevel: type[trt.HardwareCompatibilityLevel]
    LayerInformationFormat: type[trt.LayerInformationFormat]
    MemoryPoolType: type[trt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[trt.NetworkDefinitionCreationFlag]
    OnnxParser: type[trt.OnnxParser]
    OnnxParserRefitter: type[trt.OnnxParserRefitter]
    ProfilingVerbosity: type[trt.ProfilingVerbosity]
    Refitter: type[trt.Refitter]
    Runtime: type[trt.Runtime]
    TensorIOMode: type[trt.TensorIOMode]
    # Subclassed here, which mypy allows of a name in a module only.
    ILogger: Any
    IProgressMonitor: Any
    # RTX alone.
    ComputeCapability: Any
    CudaGraphStrategy: Any

    def nptype(self, trt_type: trt.DataType) -> Any: ...

    def __hash__(self) -> int: ...
