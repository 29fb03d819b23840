"""The backends of a GPU on stand-ins of its modules and of CUDA, for machines that have neither."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from rir_deploy.engines import get_backend, ort_provider, ort_session
from rir_deploy.engines import tensorrt as backend_module
from rir_deploy.engines.ort_backend import OrtBackend
from rir_deploy.engines.tensorrt import TensorRtBackend
from rir_deploy.engines.tensorrt_flavour import RTX, TENSORRT
from rir_deploy.engines.tensorrt_gpu import Gpu
from tests.engines.fake_cuda import FakeCudart
from tests.engines.fake_ort import FakeOrt
from tests.engines.fake_runtime import FakeTensorRt
from tests.engines.surface import FULL_VERSIONS, RTX_VERSION

ADA = Gpu("NVIDIA L4", (8, 9))
VERSIONS = (*FULL_VERSIONS, RTX_VERSION)


def label(version: str) -> str:
    return (RTX if version == RTX_VERSION else TENSORRT).label


@dataclass(frozen=True)
class StandIn:
    backend: TensorRtBackend
    module: FakeTensorRt


@contextmanager
def stand_in(version: str, gpu: Gpu = ADA) -> Iterator[StandIn]:
    """While it lasts, the backend of that version finds its module, a GPU and CUDA."""
    module = FakeTensorRt(FakeCudart(), version)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_module, "load_module", lambda flavour: module)
        patch.setattr(backend_module, "probe_gpu", lambda: gpu)
        patch.setattr(backend_module, "load_cudart", lambda install: module.cudart)
        yield StandIn(TensorRtBackend(RTX if version == RTX_VERSION else TENSORRT), module)


@dataclass(frozen=True)
class OrtStandIn:
    backend: OrtBackend
    module: FakeOrt


@contextmanager
def ort_stand_in(name: str, gpu: Gpu = ADA) -> Iterator[OrtStandIn]:
    """While it lasts, ONNX Runtime has that backend's provider and there is a GPU."""
    backend = get_backend(name)
    assert isinstance(backend, OrtBackend)
    module = FakeOrt(backend.provider.provider, plugin=bool(backend.provider.plugin))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", module)
        if backend.provider.plugin:
            plugin = SimpleNamespace(get_library_path=lambda: "plugin.so")
            patch.setitem(sys.modules, backend.provider.plugin, plugin)
        for part in (ort_provider, ort_session):
            patch.setattr(part, "probe_gpu", lambda: gpu)
        yield OrtStandIn(backend, module)
