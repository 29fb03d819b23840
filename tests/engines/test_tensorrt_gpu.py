from __future__ import annotations

from typing import Any

import pytest

from rir_deploy.engines import tensorrt_gpu
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu, cuda_version, probe_gpu


class FakeDriver:
    """CUDA's driver API: results through pointers, 0 for success."""

    def __init__(self, init: int = 0, count: int = 1) -> None:
        self.init, self.count = init, count

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def cuDriverGetVersion(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = 12060
        return self.init

    def cuDeviceGetCount(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.value = self.count
        return 0

    def cuDeviceGet(self, pointer: Any, ordinal: int) -> int:  # noqa: N802
        pointer._obj.value = 5
        return 0

    def cuDeviceGetName(self, buffer: Any, size: int, device: Any) -> int:  # noqa: N802
        assert (size, device.value) == (256, 5)
        buffer.value = b"NVIDIA GeForce RTX 4090"
        return 0

    def cuDeviceGetAttribute(self, pointer: Any, attribute: int, device: Any) -> int:  # noqa: N802
        pointer._obj.value = {16: 128, 75: 8, 76: 9}[attribute]
        return 0


def test_a_gpu_is_named_with_its_compute_capability_and_size() -> None:
    gpu = probe_gpu(FakeDriver())
    assert gpu == Gpu("NVIDIA GeForce RTX 4090", (8, 9), 128)
    assert isinstance(gpu, Gpu)
    assert gpu.label == "NVIDIA GeForce RTX 4090 (sm89, 128 SMs)"
    assert Gpu("later", (12, 1)).label == "later (sm121)"
    assert gpu.target == "sm89"
    assert Gpu("later", (12, 1)).target == "sm121"


def test_the_attribute_numbers_are_cudas() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    names = driver.CUdevice_attribute
    assert int(names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) == tensorrt_gpu._MULTIPROCESSORS
    assert int(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) == tensorrt_gpu._CAPABILITY_MAJOR
    assert int(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) == tensorrt_gpu._CAPABILITY_MINOR


def test_why_there_is_none() -> None:
    assert probe_gpu(FakeDriver(init=100)) == NoGpu("the NVIDIA driver finds no GPU (CUDA error 100)")
    assert probe_gpu(FakeDriver(count=0)) == NoGpu("the NVIDIA driver shows no GPU to this process")


def test_no_driver_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_gpu, "_library_name", lambda: "libnothing-of-that-name.so.1")
    assert probe_gpu() == NoGpu("no NVIDIA driver")
    assert cuda_version() is None


def test_the_newest_cuda_of_a_driver_is_asked_of_it() -> None:
    assert cuda_version(FakeDriver()) == "12.6"
    assert cuda_version(FakeDriver(init=3)) is None
    assert cuda_version(object()) is None
