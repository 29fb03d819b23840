"""The table on what calls took on the GPU itself."""

from __future__ import annotations

from rir_deploy.report import text
from rir_deploy.report.schema_bench import Bench
from rir_deploy.report.table import Cell, Table, columns
from rir_deploy.report.tables_bench import key_of, labels

_PARTS = ("upload", "compute", "download", "enqueue")


def gpu_table(bench: Bench) -> Table | None:
    """A row an engine, batch size and mode: medians in ms by part; None where nothing was timed by CUDA events."""
    rows = [one for one in bench.results if one.gpu_ms]
    if not rows:
        return None
    names = labels(bench)
    titles = columns(
        "engine", ">batch", *(f">{part} (ms)" for part in _PARTS), "CUDA graph", "copies to and from the GPU"
    )
    cells = tuple(
        (
            Cell(names[key_of(one)], title=one.engine),
            Cell(text.count(one.batch)),
            *(Cell(text.ms(one.gpu_ms[part].median if part in one.gpu_ms else None)) for part in _PARTS),
            Cell(_whether(one.cuda_graph)),
            Cell(_whether(one.transfers)),
        )
        for one in rows
    )
    caption = "On the GPU, by CUDA events: medians; enqueue is the host's time to launch a call"
    return Table("gpu", caption, titles, cells, wide=True)


def _whether(value: bool | None) -> str:
    return text.NONE if value is None else "yes" if value else "no"
