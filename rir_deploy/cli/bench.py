"""rir-deploy bench"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rir_deploy.bench.options import MODE_CHOICES, BenchOptions
from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command, OutputPath, check_outputs
from rir_deploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from rir_deploy.bench.baseline import BaselineResult
    from rir_deploy.pipeline.bench import Benched


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


@click.command("bench", cls=Command, short_help="Time engines side by side.")
@click.argument("engines", metavar="ENGINE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@common.batches_option
@click.option(
    "--mode",
    type=click.Choice(sorted(MODE_CHOICES)),
    default="latency",
    show_default=True,
    help="One request after another, or several in flight.",
)
@click.option("--streams", type=int, metavar="N", help="Requests in flight. Default: what the runtime recommends.")
@click.option("--threads", type=int, help="CPU threads in all. Default: all cores of this process.")
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
@click.option("--no-data-transfers", is_flag=True, help="TensorRT, RTX: leave the copies to and from the GPU out.")
@click.option(
    "--runtime-cache",
    type=OutputPath("cache"),
    metavar="FILE",
    help="RTX: keep the kernels that it compiles; read and written. Native code: a file of your own.",
)
@common.trust_option
@common.recipe_option
@common.model_option
@common.weights_option
@click.option("--baseline", type=click.Path(path_type=Path), metavar="FILE", help="Earlier --json output: the gate.")
@click.option("--max-regression", callback=_share, metavar="SHARE", help="Allowed over the baseline. Default: 5%.")
@click.option("--export-times", type=OutputPath(), metavar="FILE", help="Write every raw time as JSON.")
@common.force_option
@common.json_option
def command(
    engines: tuple[Path, ...],
    batches: tuple[int, ...],
    mode: str,
    streams: int | None,
    threads: int | None,
    warmup_ms: float,
    duration_s: float,
    iterations: int,
    rounds: int,
    percentiles: tuple[float, ...],
    names: tuple[str, ...],
    channels_last: bool,
    cuda_graph: bool,
    no_data_transfers: bool,
    runtime_cache: Path | None,
    trust: bool,
    recipe: str | None,
    factory: str | None,
    weights: str | None,
    baseline: Path | None,
    max_regression: float | None,
    export_times: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Time every ENGINE: an engine folder, an ONNX file (in ONNX Runtime), a checkpoint (in PyTorch eager mode) or a
    bundle, whose engines are meant.

    \b
    --mode latency     one synchronous request after another: what an application waits
    --mode throughput  --streams requests in flight: what a machine gets through in a second

    Each engine is timed in processes of its own, the runtime's own copies included, preprocessing not. With --baseline,
    exit with 3 where a call takes longer by more than --max-regression, or what it has timed does not run.
    """
    from rir_deploy.engines.gpu_options import GpuOptions
    from rir_deploy.pipeline.bench import BenchRequest, bench_files

    if max_regression is not None and baseline is None:
        raise UsageError("--max-regression needs --baseline: name the file to compare with")
    if streams is not None and mode == "latency":
        raise UsageError("--streams are requests in flight: add --mode throughput or --mode both")
    options = BenchOptions(
        warmup_ms=warmup_ms,
        duration_s=duration_s,
        iterations=iterations,
        rounds=rounds,
        percentiles=percentiles,
        batches=batches,
        threads=threads,
        modes=MODE_CHOICES[mode],
        streams=streams,
    )
    allowed = 0.05 if max_regression is None else max_regression
    gpu = GpuOptions(cuda_graph, runtime_cache, transfers=not no_data_transfers)
    request = BenchRequest(
        engines, options, recipe, factory, channels_last, gpu, trust, baseline, allowed, names, weights
    )
    check_outputs(export_times, force=force)
    with common.progress(as_json) as progress:
        benched = bench_files(request, progress)
    if export_times is not None:
        _export(benched, export_times, force)
    if as_json:
        common.print_json(benched.to_dict())
    else:
        from rir_deploy.cli.bench_print import print_benched

        print_benched(benched)
    return _judge(benched.baseline)


def _export(benched: Benched, path: Path, force: bool) -> None:
    from rir_deploy.artifacts import atomic_file

    with atomic_file(path, force=force) as temporary:
        temporary.write_text(json.dumps(benched.times_to_dict()) + "\n", encoding="utf-8")


def _judge(gate: BaselineResult | None) -> int:
    if gate is None or gate.passed:
        return 0
    common.complain(f"worse than the baseline: {'; '.join(gate.failures)}")
    return GateError.exit_code
