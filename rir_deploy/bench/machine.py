"""The machine a figure was measured on, as far as it can be read."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from rir_deploy.bench.board import Board, read_board
from rir_deploy.bench.cpu import CpuClocks, read_clocks
from rir_deploy.bench.gpu import GpuState, read_gpus

# CPU flags that decide how fast INT8 and BF16 run: (flag in /proc/cpuinfo, what it is called).
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimddp": "NEON dot product",
    "i8mm": "NEON i8mm",
}


@dataclass(frozen=True)
class Machine:
    """``cores`` are those this process may use; ``gpus`` as the driver names them; ``driver`` None without one.

    ``clocks``, ``gpu_states`` and ``board`` are as they were at the moment of reading.
    """

    system: str
    python: str
    cpu: str
    cores: int
    memory_gb: float | None
    features: tuple[str, ...]
    gpus: tuple[str, ...]
    driver: str | None
    clocks: CpuClocks = CpuClocks()
    gpu_states: tuple[GpuState, ...] = ()
    board: Board = Board()

    @property
    def has_vnni(self) -> bool:
        """Whether uint8 x int8 products are summed without saturating."""
        return bool({"AVX512-VNNI", "AVX-VNNI", "AMX-INT8", "NEON dot product"} & set(self.features))

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def read_machine() -> Machine:
    """Read this machine; what cannot be read is left out, never guessed."""
    model, flags = _cpu()
    cores, gpus = own_cores(), read_gpus()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=model,
        cores=len(cores),
        memory_gb=_memory_gb(),
        features=tuple(name for flag, name in _FEATURES.items() if flag in flags),
        gpus=tuple(gpu.label for gpu in gpus),
        driver=gpus[0].driver if gpus else None,
        clocks=read_clocks(cores),
        gpu_states=gpus,
        board=read_board(),
    )


def own_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def load_average() -> float | None:
    """How many processes wanted to run in the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cpu() -> tuple[str, frozenset[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown", frozenset()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    entries = {key.strip(): value.strip() for key, value in fields.items()}
    model = entries.get("model name") or entries.get("Model") or platform.processor() or "unknown"
    return model, frozenset((entries.get("flags") or entries.get("Features") or "").split())


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
