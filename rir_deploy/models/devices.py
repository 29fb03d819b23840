"""The device to train on, what it can do, and what a training has to itself: random numbers, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from rir_deploy.errors import BackendError

_CPU_BF16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def choose_device(name: str) -> torch.device:
    """The device that ``name`` means here.

    Raises:
        BackendError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"there is no device '{name}' on this machine; use device 'cpu' or 'auto'")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, so that it is worth training in."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private names: where a release lacks them, training is in float32.
    probes = [getattr(torch.cpu, name, None) for name in _CPU_BF16]
    return any(probe is not None and bool(probe()) for probe in probes)


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Seeded and deterministic inside, the caller's random numbers untouched outside."""
    devices = [device] if device.type == "cuda" else []
    exact: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.random.fork_rng(devices=devices), exact:
        torch.manual_seed(seed)
        yield


@contextmanager
def own_threads(count: int) -> Iterator[None]:
    """``count`` CPU threads inside (0: as many as before), the caller's number outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
