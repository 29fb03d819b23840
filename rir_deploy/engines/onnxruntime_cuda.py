"""ONNX Runtime's CUDA provider: FP32 and FP16. Not yet run on a GPU."""

from __future__ import annotations

from rir_deploy.engines.ort_backend import OrtBackend
from rir_deploy.engines.ort_provider import OrtProvider

BACKEND = OrtBackend(
    OrtProvider(
        "onnxruntime-cuda",
        "CUDAExecutionProvider",
        "ONNX Runtime's CUDA provider",
        install='python -m pip install "onnxruntime-gpu[cuda,cudnn]"',
        precisions=("fp32", "fp16"),
        refused={
            "int8": "ONNX Runtime's CUDA provider has no INT8 convolutions and would compute this graph in float; "
            "build FP16, or take tensorrt, tensorrt-rtx or onnxruntime-rtx for INT8"
        },
        options={"use_tf32": "0"},  # on by default: FP32 with 10-bit mantissas
        gpu=True,
    )
)
