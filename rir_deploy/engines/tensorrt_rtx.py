"""TensorRT for RTX: the backend of `tensorrt.py` with NVIDIA's RTX module. Its builder needs no GPU."""

from __future__ import annotations

from rir_deploy.engines.tensorrt import TensorRtBackend
from rir_deploy.engines.tensorrt_flavour import RTX

BACKEND = TensorRtBackend(RTX)
