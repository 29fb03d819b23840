"""What makes the figures of a machine doubtful: one sentence each, with what to do about it."""

from __future__ import annotations

from rir_deploy.bench.conditions import Conditions, GpuConditions
from rir_deploy.bench.machine import Machine

# Bounds, as shares.
MAX_LOAD = 0.5
MAX_STEAL = 0.01
MAX_OTHERS = 0.10
MAX_CLOCKS = 0.05
# Launching a request takes so much of what it computes: the GPU waits for the host.
MAX_ENQUEUE = 0.8
# Involuntary context switches a second: a core that was to be this process's alone went to another one.
MAX_PREEMPTIONS = 50.0


def machine_doubts(machine: Machine, threads: int) -> list[str]:
    """Before the start."""
    clocks, found = machine.clocks, []
    fixed = clocks.min_mhz is not None and clocks.min_mhz == clocks.max_mhz
    if clocks.governor not in (None, "performance") and not fixed:
        found.append(
            f"the CPU's clocks follow the load (governor {clocks.governor}); for the timing run: "
            "sudo cpupower frequency-set -g performance (on a Jetson: sudo jetson_clocks)"
        )
    if clocks.quota_cores is not None and clocks.quota_cores < threads:
        found.append(
            f"the container may use {clocks.quota_cores:g} cores and {threads} threads run: it is stopped at times; "
            f"give --threads {max(1, int(clocks.quota_cores))} or a larger quota"
        )
    for gpu in machine.board.gpu_clocks:
        if gpu.min_mhz is not None and gpu.max_mhz is not None and gpu.min_mhz < gpu.max_mhz:
            found.append(
                f"the GPU's clock is free to move from {gpu.min_mhz:g} to {gpu.max_mhz:g} MHz; for the timing run: "
                "sudo jetson_clocks"
            )
    return found


def conditions_doubts(conditions: Conditions, cores: int, load: float | None) -> list[str]:
    """After the end.

    ``load`` is the number of processes that wanted to run in the minute before the start, this tool's own among them:
    it counts where the system does not tell what the others took meanwhile.
    """
    found = []
    if conditions.others is None and load is not None and load > MAX_LOAD * cores:
        found.append(f"the machine was busy before the start (load {load:.1f} on {cores} cores); stop what else runs")
    if conditions.steal is not None and conditions.steal > MAX_STEAL:
        found.append(
            f"the hypervisor gave {conditions.steal:.0%} of the CPU time to other machines; time on a host of your own"
        )
    if conditions.others is not None and conditions.others > MAX_OTHERS:
        found.append(f"other processes took {conditions.others:.0%} of the CPU time; stop them and time again")
    if conditions.quota_stops:
        found.append(
            f"the container was stopped {conditions.quota_stops} times because its CPU time was used up; "
            "take fewer --threads or a larger quota"
        )
    if conditions.throttles:
        found.append(
            f"heat or power slowed the CPU down {conditions.throttles} times; let it cool, or fix a lower clock"
        )
    if conditions.cpu_mhz is not None and _moved(conditions.cpu_mhz):
        low, high = conditions.cpu_mhz
        found.append(f"the CPU's clock moved between {low:g} and {high:g} MHz; fix it for the timing")
    return found + [doubt for gpu in conditions.gpus for doubt in _gpu_doubts(gpu)]


def _gpu_doubts(gpu: GpuConditions) -> list[str]:
    found = []
    if gpu.throttled:
        found.append(f"{gpu.name} was slowed down ({', '.join(gpu.throttled)}); let it cool, or lock a lower clock")
    if gpu.clock_mhz is not None and _moved(gpu.clock_mhz):
        low, high = gpu.clock_mhz
        found.append(
            f"the clock of {gpu.name} moved between {low:g} and {high:g} MHz; lock it for the timing: "
            f"sudo nvidia-smi --lock-gpu-clocks {low:.0f}"
        )
    return found


def _moved(clock: tuple[float, float]) -> bool:
    return clock[1] - clock[0] > MAX_CLOCKS * clock[1]


def host_bound(enqueue_ms: float, compute_ms: float) -> str | None:
    """Medians of a request's launch on the host, and of what was launched on the GPU."""
    if enqueue_ms <= MAX_ENQUEUE * compute_ms:
        return None
    return (
        f"the GPU waits for the host: launching takes {enqueue_ms:.3f} ms and computing {compute_ms:.3f} ms; "
        "replay a CUDA graph with --cuda-graph, or take larger batches"
    )


def preempted(per_second: float) -> str | None:
    """By the rate of involuntary context switches while timing."""
    if per_second <= MAX_PREEMPTIONS:
        return None
    return (
        f"the process was put aside {per_second:.0f} times a second for others; stop what else runs, or take fewer "
        "--threads or --streams"
    )
