"""The parts of a run's record about machines and what was timed on them. See `schema`."""

from __future__ import annotations

from dataclasses import dataclass, field

from rir_deploy.report.reader import Amount, Count, Size

# One request after another.
SYNCHRONOUS = "synchronous"


@dataclass(frozen=True)
class Clocks:
    """Of the CPU when the record was made, and the CPU time in cores that a container may use; None is not known."""

    governor: str | None = None
    max_mhz: Amount | None = None
    fastest_mhz: Amount | None = None
    turbo: bool | None = None
    quota_cores: Amount | None = None


@dataclass(frozen=True)
class DeviceClock:
    """Of a Jetson's GPU, which NVIDIA's driver says nothing about."""

    name: str
    mhz: Amount | None = None
    max_mhz: Amount | None = None


@dataclass(frozen=True)
class GpuState:
    """A GPU when the record was made; None is what its driver does not say. ``throttled``: why it is slowed down."""

    name: str
    clock_mhz: Amount | None = None
    max_clock_mhz: Amount | None = None
    temperature_c: float | None = None
    power_w: Amount | None = None
    power_limit_w: Amount | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """``power_mode``, ``gpu_clocks`` and ``power_w`` (by rail) are a Jetson's; temperatures are by thermal zone."""

    power_mode: str | None = None
    gpu_clocks: tuple[DeviceClock, ...] = ()
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_w: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """``features`` are CPU features that decide how fast INT8 runs; ``driver`` is NVIDIA's, None without one."""

    system: str
    python: str
    cpu: str
    cores: Count
    memory_gb: Amount | None
    features: tuple[str, ...]
    gpus: tuple[str, ...]
    driver: str | None
    clocks: Clocks = Clocks()
    gpu_states: tuple[GpuState, ...] = ()
    board: Board = Board()


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call, or of one part of it; ``iqr`` is what the middle half of the calls covers."""

    median: Amount
    p90: Amount
    p95: Amount
    p99: Amount
    min: Amount | None = None
    max: Amount | None = None
    mean: Amount | None = None
    std: Amount | None = None
    iqr: Amount | None = None


@dataclass(frozen=True)
class BenchResult:
    """An engine at one batch size; ``latency_ms`` is None where it was not run, and ``reason`` says why.

    ``mode`` is how the calls follow one another, ``streams`` how many are in flight. ``speedup`` is over the first row
    of the same mode and batch size that ran, by the median or, where several are in flight, by images/s; what was not
    measured is None. ``quantiles_ms`` are equally spaced, from the fastest call to the slowest.

    ``engine_memory_mb`` is what of the peak came with the engine: a difference of two readings, of any sign.
    ``gpu_ms`` has the parts of a call on the GPU ("upload", "compute", "download") and "enqueue", the host's time to
    launch it; ``cuda_graph`` and ``transfers`` say how it was called there, None on backends that have no such choice.
    """

    engine: str
    backend: str
    precision: str
    batch: Size
    latency_ms: Latency | None
    throughput_per_s: Amount | None
    status: str = "ok"
    reason: str = ""
    speedup: Amount | None = None
    warnings: tuple[str, ...] = ()
    mode: str = SYNCHRONOUS
    streams: Size | None = None
    import_ms: Amount | None = None
    load_ms: Amount | None = None
    first_inference_ms: Amount | None = None
    peak_memory_mb: Amount | None = None
    engine_memory_mb: float | None = None
    quantiles_ms: tuple[Amount, ...] = ()
    gpu_ms: dict[str, Latency] = field(default_factory=dict)
    cuda_graph: bool | None = None
    transfers: bool | None = None


@dataclass(frozen=True)
class GpuConditions:
    """A GPU while the timing went on; ``clock_mhz`` from the lowest to the highest that was seen."""

    name: str
    clock_mhz: tuple[Amount, Amount] | None = None
    max_temperature_c: float | None = None
    max_power_w: Amount | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """What happened while the timing went on; None is not known.

    ``steal`` and ``others`` are the shares of the CPU time that the hypervisor gave to other machines, and that other
    processes took; ``throttles`` and ``quota_stops`` count.
    """

    seconds: Amount
    steal: Amount | None = None
    others: Amount | None = None
    throttles: Count | None = None
    quota_stops: Count | None = None
    cpu_power_w: Amount | None = None
    cpu_mhz: tuple[Amount, Amount] | None = None
    max_temperatures_c: dict[str, float] = field(default_factory=dict)
    max_power_w: dict[str, float] = field(default_factory=dict)
    gpus: tuple[GpuConditions, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What was timed, on what and how; ``settings`` are those of the bench, by name."""

    machine: Machine
    settings: dict[str, object]
    results: tuple[BenchResult, ...]
    notes: tuple[str, ...] = field(default=())
    conditions: Conditions | None = None
