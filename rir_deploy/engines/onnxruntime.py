"""ONNX Runtime on the CPU."""

from __future__ import annotations

from rir_deploy.engines.ort_backend import OrtBackend
from rir_deploy.engines.ort_provider import OrtProvider

BACKEND = OrtBackend(OrtProvider("onnxruntime", "CPUExecutionProvider", "ONNX Runtime"))
