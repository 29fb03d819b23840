"""The parts of a run's record about engines: what was built, its parity proof, its latency. See `schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rir_deploy.report.reader import Amount, Count, Share, Size

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
class Kept:
    """A node that was left as it is, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Score:
    """One side of a parity proof; the accuracies are None where the images have no labels."""

    top1: Share | None
    top5: Share | None
    runs_on: str


@dataclass(frozen=True)
class GateBounds:
    """The bounds of a parity gate; ``atol`` and ``rtol`` are None where outputs are not compared one by one."""

    precision: str
    min_agreement: Share
    max_top1_drop: Amount
    atol: Amount | None
    rtol: Amount | None


@dataclass(frozen=True)
class Drop:
    """What can be said of the drop of top-1, in points.

    ``lost`` and ``gained`` are the images that the reference alone, or the engine alone, has right. ``interval`` is the
    paired 95 % interval, ``mcnemar_p`` McNemar's exact p; ``images_needed`` would decide for the engine, None where it
    is decided or no number would.
    """

    lost: Count
    gained: Count
    interval: tuple[float, float]
    mcnemar_p: Share
    margin: Amount
    verdict: Literal["non-inferior", "inferior", "undecided"]
    images_needed: Count | None


@dataclass(frozen=True)
class Flip:
    """An image, by its place in the data, that the two sides do not call the same; classes by name.

    ``label`` is None without labels, ``candidate`` and its margin where the engine's answer is not finite. A margin is
    how far the logit of the prediction is over the next one.
    """

    image: Count
    name: str
    label: str | None
    reference: str
    candidate: str | None
    reference_margin: Amount | None
    candidate_margin: Amount | None


@dataclass(frozen=True)
class Verify:
    """A parity proof.

    ``simulation``: the engine's graph ran in its place. ``sqnr_db`` is None where the outputs are equal, the errors
    where they are not finite. ``drop`` is None without labels; ``flips`` are some of the ``flipped``, those that the
    reference was surest of.
    """

    passed: bool
    failures: tuple[str, ...]
    simulation: bool
    images: Count
    reference: Score
    candidate: Score
    agreement: Share
    top1_drop: float | None
    max_abs_error: Amount | None
    mean_abs_error: Amount | None
    sqnr_db: float | None
    gate: GateBounds
    drop: Drop | None
    flipped: Count
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class Engine:
    """An engine. ``status`` is "verified", "failed", "built, not run" or, with a proof of its graph alone, "not built".
    ``reason`` says why it is not the first, or what the proof of a verified one leaves open (an FP16 engine on a CPU
    that computes in FP32).

    ``size_bytes`` and ``seconds`` are None where it was not built; ``realized`` is what the runtime made of it.
    """

    name: str
    backend: str
    backend_version: str
    precision: str
    flavour: str | None
    size_bytes: Count | None
    targets: tuple[str, ...]
    seconds: Amount | None
    realized: dict[str, object]
    status: Literal["verified", "failed", "built, not run", "not built"]
    reason: str
    verify: Verify | None

    @property
    def ran(self) -> bool:
        """Whether the engine itself answered, and not a graph in its place."""
        return self.status in ("verified", "failed")

    @property
    def failed(self) -> bool:
        """A proof that failed counts, whatever the status says."""
        return self.status == "failed" or (self.verify is not None and not self.verify.passed)


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
