"""rir-deploy bench"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.cli import common
from rir_deploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from rir_deploy.bench.baseline import BaselineResult
    from rir_deploy.bench.rows import BenchRow
    from rir_deploy.pipeline.bench import Benched


def _batches(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"'{value}' is not a list of batch sizes; write for example 1,8,32")
    return tuple(int(part) for part in parts)


def _share(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Parse 5% or 0.05; a bare number over 1 could be meant as either."""
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10 or (share > 1 and not value.endswith("%")):
        raise click.BadParameter(f"'{value}' is not a share; write for example 5% or 0.05")
    return share


@click.command("bench", short_help="Time engines side by side.")
@click.argument("engines", metavar="ENGINE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--batch", "batches", default="1", show_default=True, metavar="N,...", callback=_batches, help="Batch sizes."
)
@click.option("--threads", type=int, help="Threads of the runtimes. Default: all cores of this process.")
@click.option(
    "--warmup", "warmup_ms", type=float, default=200, show_default=True, metavar="MS", help="Warm-up a round."
)
@click.option("--duration", "duration_s", type=float, default=3, show_default=True, metavar="S", help="Timing in all.")
@click.option("--iterations", type=int, default=10, show_default=True, help="Timed calls in all, at least.")
@click.option("--rounds", type=int, default=3, show_default=True, help="Turns that the engines take.")
@click.option("--percentile", "percentiles", type=float, multiple=True, help="One more beside 90, 95, 99; repeatable.")
@click.option("--engine", "names", multiple=True, metavar="NAME", help="What to time of a bundle; repeatable.")
@click.option("--channels-last", is_flag=True, help="Time checkpoints in this layout as well.")
@click.option("--cuda-graph", is_flag=True, help="TensorRT, RTX: replay an engine's kernels as one CUDA graph.")
@click.option(
    "--runtime-cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="RTX: keep the kernels that it compiles; read and written. Native code: a file of your own.",
)
@common.trust_option
@common.recipe_option
@common.model_option
@click.option("--baseline", type=click.Path(path_type=Path), metavar="FILE", help="Earlier --json output: the gate.")
@click.option("--max-regression", callback=_share, metavar="SHARE", help="Allowed over the baseline. Default: 5%.")
@click.option("--export-times", type=click.Path(path_type=Path), metavar="FILE", help="Write every raw time as JSON.")
@common.force_option
@common.json_option
def command(
    engines: tuple[Path, ...],
    batches: tuple[int, ...],
    threads: int | None,
    warmup_ms: float,
    duration_s: float,
    iterations: int,
    rounds: int,
    percentiles: tuple[float, ...],
    names: tuple[str, ...],
    channels_last: bool,
    cuda_graph: bool,
    runtime_cache: Path | None,
    trust: bool,
    recipe: str | None,
    factory: str | None,
    baseline: Path | None,
    max_regression: float | None,
    export_times: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Time every ENGINE: an engine folder, an ONNX file (in ONNX Runtime), a checkpoint (in PyTorch eager mode) or a
    bundle, whose engines are meant.

    Each is timed in a process of its own, one call after another, the runtime's own copies included. With --baseline,
    exit with 3 where a median grew by more than --max-regression.
    """
    from rir_deploy.bench.options import BenchOptions
    from rir_deploy.engines.base import GpuOptions
    from rir_deploy.pipeline.bench import BenchRequest, bench_files

    if max_regression is not None and baseline is None:
        raise UsageError("--max-regression needs --baseline: name the file to compare with")
    options = BenchOptions(
        warmup_ms=warmup_ms,
        duration_s=duration_s,
        iterations=iterations,
        rounds=rounds,
        percentiles=percentiles,
        batches=batches,
        threads=threads,
    )
    allowed = 0.05 if max_regression is None else max_regression
    gpu = GpuOptions(cuda_graph, runtime_cache)
    request = BenchRequest(engines, options, recipe, factory, channels_last, gpu, trust, baseline, allowed, names)
    _check_export(export_times, force)
    with common.progress(as_json) as progress:
        benched = bench_files(request, progress)
    if export_times is not None:
        _export(benched, export_times, force)
    if as_json:
        common.print_json(benched.to_dict())
    else:
        print_benched(benched)
    return _judge(benched.baseline)


def _check_export(path: Path | None, force: bool) -> None:
    from rir_deploy.artifacts import check_output

    if path is not None:
        check_output(path, force=force)


def _export(benched: Benched, path: Path, force: bool) -> None:
    from rir_deploy.artifacts import atomic_file

    with atomic_file(path, force=force) as temporary:
        temporary.write_text(json.dumps(benched.times_to_dict()) + "\n", encoding="utf-8")


def _judge(gate: BaselineResult | None) -> int:
    if gate is None or gate.passed:
        return 0
    click.echo(f"rir-deploy: slower than the baseline: {'; '.join(gate.failures)}", err=True)
    return GateError.exit_code


def print_benched(benched: Benched) -> None:
    """Machine, settings, one table, what ran, and what to be wary of."""
    from rir_deploy.report.console import print_table

    _print_setting(benched)
    names = short_names([row.engine for row in benched.rows])
    rows = benched.rows
    extra = sorted({key for row in rows if row.record for key in row.record.percentiles_ms})
    columns = ("engine", "backend", "precision", "batch", "median ms", *(f"p{p:g}" for p in extra), "images/s", "speed")
    print_table("bench: latency of one call", columns, [_cells(row, benched, extra, names) for row in rows])
    for line in _remarks(benched, names):
        common.say(line)


def _print_setting(benched: Benched) -> None:
    machine, settings = benched.machine, benched.settings
    hardware = ", ".join([*machine.features, *machine.gpus])
    common.say(f"machine: {machine.cpu}, {machine.cores} cores, {machine.system}{f' ({hardware})' if hardware else ''}")
    rounds = "1 round" if settings["rounds"] == 1 else f"{settings['rounds']} rounds"
    common.say(
        f"settings: {rounds}, {settings['duration_s']:g} s and {settings['iterations']} calls at least, "
        f"warm-up {settings['warmup_ms']:g} ms a round, {settings['threads']} threads, "
        f"{settings['mode']} calls with data in host memory"
    )


def short_names(engines: list[str]) -> dict[str, str]:
    """The last part of every path, or all of it where two have the same."""
    distinct = list(dict.fromkeys(engines))
    last = [Path(engine).name or engine for engine in distinct]
    return {engine: name if last.count(name) == 1 else engine for engine, name in zip(distinct, last, strict=True)}


def _cells(row: BenchRow, benched: Benched, extra: list[float], names: dict[str, str]) -> list[object]:
    from rir_deploy.bench.rows import speedup

    head: list[object] = [names[row.engine], row.backend, row.precision, row.batch]
    factor = speedup(row, benched.rows)
    if row.record is None or factor is None:
        return [*head, *["-"] * (len(extra) + 3)]
    record = row.record
    times = [record.median_ms, *(record.percentiles_ms[key] for key in extra)]
    return [*head, *(f"{ms:.3f}" for ms in times), f"{record.throughput_per_s:,.0f}", f"{factor:.2f}x"]


def _remarks(benched: Benched, names: dict[str, str]) -> list[str]:
    """What really ran, what did not, and what makes a figure doubtful."""
    ran = [f"{names[row.engine]} runs on {row.details['runs_on']}" for row in benched.rows if row.record is not None]
    absent = [f"not run: {names[row.engine]} ({row.backend}): {row.reason}" for row in benched.rows if not row.record]
    lines = list(dict.fromkeys([*ran, *absent]))
    for row in benched.rows:
        if row.record is not None and row.record.warnings:
            label = f"{names[row.engine]} ({row.backend}) at batch {row.batch}"
            lines.append(f"warning: {label}: {'; '.join(row.record.warnings)}")
    lines += [f"warning: {note}" for note in benched.notes]
    return lines + ([] if benched.baseline is None else _gate_lines(benched.baseline))


def _gate_lines(gate: BaselineResult) -> list[str]:
    verdict = "passed" if gate.passed else "FAILED"
    counts = f"{len(gate.comparisons)} compared, {len(gate.regressions)} slower than allowed"
    return [*(f"not compared: {one}" for one in gate.missing), f"baseline {verdict}: {counts}"]
