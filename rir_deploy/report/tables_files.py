"""Tables on provenance, and on what the run left out."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema import File, Run
from rir_deploy.report.schema_bench import SYNCHRONOUS, Bench
from rir_deploy.report.table import Cell, Table, columns
from rir_deploy.report.tables_bench import key_of, labels


def files_table(files: tuple[File, ...]) -> Table:
    """Every file with its hash and what it was made from, by name where the run holds it."""
    paths = {file.sha256: file.path for file in files}
    rows = tuple(
        (
            Cell(file.path),
            Cell(text.size(file.size_bytes)),
            Cell(text.short_hash(file.sha256), title=file.sha256),
            Cell(
                ", ".join(paths.get(parent, text.short_hash(parent)) for parent in file.parents) or text.NONE,
                title=", ".join(file.parents),
            ),
        )
        for file in files
    )
    titles = columns("file", ">size", "sha256", "made from")
    return Table("files", "Files and what they were made from", titles, rows, wide=True)


def absent_table(run: Run) -> Table | None:
    """What was not run, and why; None where everything was."""
    rows = [
        *_absent_stages(run),
        *_absent_int8(run),
        *_absent_engines(run),
        *([] if run.bench is None else _absent_times(run.bench)),
    ]
    if not rows:
        return None
    cells = tuple((Cell(what), Cell(why)) for what, why in rows)
    return Table("absent", "Not run, and why", columns("what", "why"), cells, wide=True)


def _absent_stages(run: Run) -> list[tuple[str, str]]:
    export = run.export
    rows = []
    if export.check is None:
        rows.append(("check of the exported graph", "it was left out"))
    if export.fold is None:
        rows.append(("fold", "it was left out: the graphs are the raw trace"))
    if not run.engines:
        rows.append(("engines", "none was built"))
    if run.stages is None:
        rows.append(("comparison of every stage and layer with PyTorch", "it was left out"))
    if run.bench is None:
        rows.append(("latency", "it was not measured"))
    return rows


def _absent_int8(run: Run) -> list[tuple[str, str]]:
    graphs = [graph for graph in run.graphs if graph.precision == "int8"]
    rows = [(f"ranking of the layers of {one.name}", "it was left out") for one in graphs if one.sensitivity is None]
    if graphs and run.unfolded is None:
        fold = run.export.fold
        why = "it was left out" if fold is not None and fold.modified else "there is but one graph: nothing folded"
        rows.append(("INT8 of the unfolded network", why))
    return rows


def _absent_engines(run: Run) -> list[tuple[str, str]]:
    rows = []
    for engine in run.all_engines:
        verify = engine.verify
        if engine.status in ("built, not run", "not built"):
            rows.append((f"engine {engine.name}", f"{engine.status}: {engine.reason}"))
        if verify is not None and verify.simulation:
            how = verify.candidate.runs_on.removeprefix("simulation: ")
            rows.append((f"parity of {engine.name}", f"by simulation: {how}"))
        elif verify is None or (engine.status == "verified" and engine.reason):
            rows.append((f"parity of {engine.name}", engine.reason or "it was not verified"))
    return rows


def _absent_times(bench: Bench) -> list[tuple[str, str]]:
    """One row an engine and reason, with the batch sizes it holds for."""
    names = labels(bench)
    batches: dict[tuple[str, str], list[str]] = {}
    for result in bench.results:
        if result.latency_ms is None:
            figure = "latency" if result.mode == SYNCHRONOUS else "throughput"
            key = (f"{figure} of {names[key_of(result)]}", result.reason or result.status)
            batches.setdefault(key, []).append(str(result.batch))
    return [(f"{what} at batch {', '.join(sizes)}", why) for (what, why), sizes in batches.items()]
