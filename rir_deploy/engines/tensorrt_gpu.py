"""Which GPU this machine has, asked of the driver itself: that needs no package and no CUDA toolkit.

Asked before anything of TensorRT's that needs a driver, because without one some of its calls return nothing and others
end the process. The calls are those of the "CUDA Driver API" manual.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

_MULTIPROCESSORS, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76


@dataclass(frozen=True)
class Gpu:
    """A GPU, its compute capability and how many multiprocessors it has (0 where that is not known)."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int = 0

    @property
    def target(self) -> str:
        """As `--target` writes it: "sm89"."""
        return f"sm{self.capability[0]}{self.capability[1]}"

    @property
    def label(self) -> str:
        """ "Orin (sm87, 8 SMs)": the modules of a Jetson share name and capability, and differ in size."""
        size = f", {self.multiprocessors} SMs" if self.multiprocessors else ""
        return f"{self.name} ({self.target}{size})"


@dataclass(frozen=True)
class NoGpu:
    """Why there is none."""

    reason: str


def probe_gpu(driver: Any = None) -> Gpu | NoGpu:
    """The first GPU that the driver shows to this process. ``driver`` is the loaded driver library; None loads it."""
    library = _driver() if driver is None else driver
    if library is None:
        return NoGpu("no NVIDIA driver")
    status = int(library.cuInit(0))
    if status != 0:
        return NoGpu(f"the NVIDIA driver finds no GPU (CUDA error {status})")
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return NoGpu("the NVIDIA driver shows no GPU to this process")
    if library.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return NoGpu("the NVIDIA driver does not open its first GPU")
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    major, minor = (_attribute(library, which, device) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    size = _attribute(library, _MULTIPROCESSORS, device)
    return Gpu(name.value.decode(errors="replace"), (major, minor), size)


def cuda_version(driver: Any = None) -> str | None:
    """The newest CUDA that the driver runs, "13.0"; None without a driver. ``driver`` as `probe_gpu` takes it."""
    library = _driver() if driver is None else driver
    number = ctypes.c_int(0)
    try:
        if library is None or library.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except AttributeError:  # some other library of that name
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _driver() -> Any:
    try:
        return ctypes.CDLL(_library_name())
    except OSError:
        return None


def _attribute(library: Any, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    library.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


def _library_name() -> str:
    return "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
