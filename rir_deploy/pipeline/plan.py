"""What a run is to do: a TOML file, read and checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rir_deploy.bench.options import MODE_CHOICES
from rir_deploy.data.tables import as_integer, as_list, as_number, as_switch, as_text, check_table
from rir_deploy.engines import BACKENDS
from rir_deploy.engines.base import BatchRange
from rir_deploy.errors import InputError, UsageError, unknown_name
from rir_deploy.pipeline.evaluation import SearchRequest
from rir_deploy.pipeline.lower import PRECISIONS, Precision
from rir_deploy.strict_data import parse_toml

_KEYS = ("checkpoint", "model", "weights", "precisions", "backends", "targets", "batch", "stages", "data", "bench")
_INT8_KEYS = ("sensitivity", "max_drop", "eval_data", "unfolded")
_DATA_KEYS = ("train", "calibration", "test")
_BENCH_KEYS = ("batches", "duration_s", "rounds", "threads", "mode", "streams", "cuda_graph", "transfers", "roofline")


@dataclass(frozen=True)
class BenchPlan:
    """``duration_s`` 0 leaves the timing out. ``mode`` is one of `bench.options.MODE_CHOICES`. ``cuda_graph`` and
    ``transfers`` are those of `GpuOptions`. ``roofline`` holds the engines of CPU backends against what the machine can
    do.
    """

    batches: tuple[int, ...] = (1,)
    duration_s: float = 3.0
    rounds: int = 3
    threads: int | None = None
    mode: str = "latency"
    streams: int | None = None
    roofline: bool = False
    cuda_graph: bool = False
    transfers: bool = True


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        recipe: name or file of the recipe.
        checkpoint: what to deploy; None trains one by the recipe first.
        factory: "package.module:factory" for a checkpoint of a foreign network.
        weights: chooses among several sets of weights in the checkpoint: "model", "ema" or a key.
        data: sources by part ("train", "calibration", "test"); what is left out is the recipe's own.
        backends: engines are built for those that are installed; one named here and not installed is refused.
        search: ranks the layers of each INT8 graph, and keeps some in float where it holds a budget; None does neither.
        stages: every stage is held against PyTorch, and every graph layer by layer.
        unfolded: INT8 is made of the network as it was traced as well, and held against that of the folded one.
    """

    recipe: str
    checkpoint: Path | None = None
    factory: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    precisions: tuple[Precision, ...] = PRECISIONS
    backends: tuple[str, ...] | None = None
    targets: tuple[str, ...] = ()
    batch: BatchRange = BatchRange()
    search: SearchRequest | None = SearchRequest()
    unfolded: bool = True
    stages: bool = True
    bench: BenchPlan = BenchPlan()
    weights: str | None = None


def read_plan(path: Path) -> Plan:
    """Read a plan; paths in it are relative to it.

    Raises:
        UsageError: there is no such file, or a name in it is unknown.
        InputError: it is malformed, naming the key.
    """
    try:
        data = parse_toml(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"there is no file '{path}'; name the plan of a run (deploy.toml)") from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is not readable TOML: {error}; correct it") from error
    try:
        return _plan(data, path.absolute().parent)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def _plan(data: dict[str, Any], folder: Path) -> Plan:
    check_table(data, "the plan", ("recipe",), (*_KEYS, *_INT8_KEYS))
    plan = Plan(_local(as_text(data["recipe"], "recipe"), folder), search=_search(data, folder))
    if "checkpoint" in data:
        plan = replace(plan, checkpoint=folder / as_text(data["checkpoint"], "checkpoint"))
    if "model" in data:
        plan = replace(plan, factory=as_text(data["model"], "model"))
    if "weights" in data:
        plan = replace(plan, weights=as_text(data["weights"], "weights"))
    if "precisions" in data:
        plan = replace(plan, precisions=_names(data, "precisions", PRECISIONS))  # type: ignore[arg-type]
    if "backends" in data:
        plan = replace(plan, backends=_names(data, "backends", tuple(BACKENDS)))
    if "targets" in data:
        plan = replace(plan, targets=tuple(as_text(x, "targets") for x in as_list(data["targets"], "targets")))
    if "batch" in data:
        sizes = [as_integer(x, "batch") for x in as_list(data["batch"], "batch")]
        if len(sizes) != 3:
            raise InputError("batch must be [min, opt, max]")
        plan = replace(plan, batch=BatchRange(*sizes))
    if "unfolded" in data:
        plan = replace(plan, unfolded=as_switch(data["unfolded"], "unfolded"))
    if "stages" in data:
        plan = replace(plan, stages=as_switch(data["stages"], "stages"))
    if "data" in data:
        table = check_table(data["data"], "data", (), _DATA_KEYS)
        plan = replace(plan, data={key: _local(as_text(value, key), folder) for key, value in table.items()})
    return (
        replace(plan, bench=_bench(check_table(data["bench"], "bench", (), _BENCH_KEYS))) if "bench" in data else plan
    )


def _search(data: dict[str, Any], folder: Path) -> SearchRequest | None:
    budget = [key for key in ("max_drop", "eval_data") if key in data]
    if not as_switch(data.get("sensitivity", True), "sensitivity"):
        if budget:
            raise InputError(f"{budget[0]} needs the ranking of the layers: leave 'sensitivity = false' out")
        return None
    if len(budget) == 1:
        raise InputError(f"{budget[0]} stands alone: max_drop (points of top-1) and eval_data go together")
    if not budget:
        return SearchRequest()
    return SearchRequest(
        as_number(data["max_drop"], "max_drop"), _local(as_text(data["eval_data"], "eval_data"), folder)
    )


def _bench(table: dict[str, Any]) -> BenchPlan:
    default = BenchPlan()
    batches = [as_integer(x, "batches") for x in as_list(table.get("batches", list(default.batches)), "batches")]
    threads, streams = table.get("threads"), table.get("streams")
    mode = as_text(table.get("mode", default.mode), "mode")
    if mode not in MODE_CHOICES:
        raise unknown_name("mode", mode, MODE_CHOICES)
    return BenchPlan(
        tuple(batches),
        as_number(table.get("duration_s", default.duration_s), "duration_s"),
        as_integer(table.get("rounds", default.rounds), "rounds"),
        None if threads is None else as_integer(threads, "threads"),
        mode,
        None if streams is None else as_integer(streams, "streams"),
        as_switch(table.get("roofline", default.roofline), "roofline"),
        as_switch(table.get("cuda_graph", default.cuda_graph), "cuda_graph"),
        as_switch(table.get("transfers", default.transfers), "transfers"),
    )


def _names(data: dict[str, Any], key: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(as_text(name, key) for name in as_list(data[key], key))
    for name in names:
        if name not in known:
            raise unknown_name(key.removesuffix("s"), name, known)
    if not names:
        raise InputError(f"{key} is empty; name at least one of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _local(text: str, folder: Path) -> str:
    """A path relative to the plan where it is one; a name ("cifar10", "digits:test") otherwise."""
    return str(folder / text) if (folder / text.partition(":")[0]).exists() or "/" in text else text
