"""The ceilings of this machine: from the cache where they are there, measured where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rir_deploy.bench.machine import Machine
from rir_deploy.bench.process import Job, run_job
from rir_deploy.engines import get_backend
from rir_deploy.errors import BackendError, InputError, RirDeployError
from rir_deploy.pipeline.progress import Progress, tracked
from rir_deploy.roofline.cache import cache_file, read_cache, write_cache
from rir_deploy.roofline.ceilings import Ceiling, Ceilings, Copy, Probe
from rir_deploy.roofline.copies import WORKING_SETS
from rir_deploy.roofline.shapes import Shape, general_shapes

WORKER = "rir_deploy.pipeline.roofline_worker"
# Backends that compute on the CPU: the ceiling of the hardware is the best of them all.
CPU_BACKENDS = ("onnxruntime", "openvino")
_KINDS = {"onnxruntime": ("int8", "fp16", "fp32"), "openvino": ("int8", "bf16", "fp16", "fp32")}


@dataclass(frozen=True)
class MeasureOptions:
    """``seconds`` a shape and round, ``rounds`` of fresh processes; ``shapes`` beside the network's own."""

    seconds: float = 0.2
    rounds: int = 3
    shapes: tuple[Shape, ...] = general_shapes()
    working_sets: tuple[int, ...] = WORKING_SETS


@dataclass(frozen=True)
class Measured:
    """``notes`` say what could not be measured or kept, a sentence each; ``cached`` is how many figures were there."""

    ceilings: Ceilings
    notes: tuple[str, ...]
    cached: int


def machine_key(machine: Machine, threads: int) -> dict[str, object]:
    """What ceilings depend on: another CPU, number of threads or version of a runtime has others."""
    return {
        "cpu": machine.cpu,
        "features": list(machine.features),
        "system": machine.system,
        "cores": machine.cores,
        "threads": threads,
        "runtimes": {name: get_backend(name).availability().version for name in CPU_BACKENDS},
    }


def measure_ceilings(
    key: dict[str, object], own: Iterable[tuple[str, Shape]], cache: bool, options: MeasureOptions, progress: Progress
) -> Measured:
    """The ceilings of the machine ``key``; ``own`` are the network's shapes, each with the precision it computes in.

    With ``cache``, only what was not measured before is measured, and kept.

    Raises:
        BackendError: no CPU backend is here.
    """
    there = [name for name in CPU_BACKENDS if get_backend(name).availability().can_run]
    if not there:
        raise BackendError(
            'ceilings are measured in ONNX Runtime or OpenVINO; run: python -m pip install "rir-deploy[host]"'
        )
    notes: list[str] = []
    known = Ceilings(key)
    path = cache_file(key) if cache else None
    if path is not None:
        try:
            known = read_cache(path, key) or known
        except InputError as error:
            notes.append(f"measured anew: {error}")
    cached = len(known.measured)
    general = [(kind, shape) for shape in options.shapes for kind in ("int8", "bf16", "fp16", "fp32")]
    wanted = [
        Probe(name, kind, shape) for name in there for kind, shape in (*general, *_widened(own)) if kind in _KINDS[name]
    ]
    ceilings = _measure(known, known.lacks(wanted), options, progress, notes)
    if path is not None and ceilings != known:
        try:
            write_cache(path, ceilings)
        except RirDeployError as error:
            notes.append(f"the ceilings are not kept: {error}")
    return Measured(ceilings, tuple(notes), cached)


def measure_again(ceilings: Ceilings, precision: str, seconds: float) -> Ceiling | None:
    """The best shape of a precision as it runs now; None where it does not."""
    best = ceilings.best(precision)
    if best is None:
        return None
    try:
        return _speeds([best.probe], _threads(ceilings), seconds)[0]
    except RirDeployError:
        return None


def _widened(own: Iterable[tuple[str, Shape]]) -> list[tuple[str, Shape]]:
    """An FP16 layer is tried in BF16 as well, which is as narrow."""
    pairs = list(dict.fromkeys(own))
    return [*pairs, *(("bf16", shape) for kind, shape in pairs if kind == "fp16")]


def _measure(
    known: Ceilings, probes: Sequence[Probe], options: MeasureOptions, progress: Progress, notes: list[str]
) -> Ceilings:
    """Group by group (a backend in a precision), in a fresh process each round; what does not run is noted once."""
    groups: dict[tuple[str, str], list[Probe]] = {}
    for probe in probes:
        groups.setdefault((probe.backend, probe.precision), []).append(probe)
    threads = _threads(known)
    sizes = [] if known.copies else list(options.working_sets)
    turns = [(turn, group) for turn in range(options.rounds) for group in ((*groups, None) if sizes else groups)]
    failed: set[tuple[str, str]] = set()
    for _, group in tracked(turns, "ceilings", len(turns), progress):
        if group is None:
            known = known.merged((), _copies(sizes, threads, options.seconds))
        elif group not in failed:
            try:
                known = known.merged(_speeds(groups[group], threads, options.seconds))
            except (BackendError, InputError) as error:
                failed.add(group)
                notes.append(f"no ceiling of {group[1]} in {group[0]}: {error}")
    return known


def _threads(ceilings: Ceilings) -> int:
    return int(str(ceilings.machine["threads"]))


def _speeds(probes: Sequence[Probe], threads: int, seconds: float) -> list[Ceiling]:
    job: Job = {"kind": "shapes", "threads": threads, "seconds": seconds, "probes": [one.to_dict() for one in probes]}
    answer = run_job(WORKER, job, f"the ceilings of {probes[0].precision} in {probes[0].backend}")
    return [Ceiling.from_dict(one) for one in answer["measured"]]


def _copies(sizes: Sequence[int], threads: int, seconds: float) -> list[Copy]:
    job: Job = {"kind": "copies", "threads": threads, "seconds": seconds, "sizes": list(sizes)}
    return [Copy(**one) for one in run_job(WORKER, job, "the copies of memory")["copies"]]
