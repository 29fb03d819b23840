"""NVIDIA's TensorRT-RTX as a plugin of ONNX Runtime. Not yet run on a GPU."""

from __future__ import annotations

from rir_deploy.engines.ort_backend import OrtBackend
from rir_deploy.engines.ort_provider import OrtProvider

BACKEND = OrtBackend(
    OrtProvider(
        "onnxruntime-rtx",
        "NvTensorRTRTXExecutionProvider",
        "ONNX Runtime's TensorRT-RTX plugin",
        install="python -m pip install onnxruntime onnxruntime-ep-nv-tensorrt-rtx",
        # The provider has no option for TF32 (FP32 with 10-bit mantissas, on by default); NVIDIA's libraries have this.
        environment={"NVIDIA_TF32_OVERRIDE": "0"},
        gpu=True,
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    )
)
