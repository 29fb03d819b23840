"""The times of an earlier bench, for the roofline of the machine that it was made on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rir_deploy.bench.baseline import read_baseline
from rir_deploy.bench.rows import BenchRow
from rir_deploy.errors import InputError


def read_medians(bench: Path, rows: Sequence[BenchRow], cpu: str) -> list[float]:
    """The median of every row in ms, from what ``bench --json`` printed.

    Raises:
        InputError: it lacks one, or it is of another CPU or number of threads, whose ceilings are others.
    """
    baseline = read_baseline(bench, "bench record")
    medians = []
    for row in rows:
        median = baseline.find(row)
        if median is None:
            raise InputError(f"'{bench}' has no time of {row.engine} at batch {row.batch}; time it again")
        medians.append(median)
    for difference in (*baseline.another_machine(cpu), *filter(None, map(baseline.otherwise, rows))):
        raise InputError(f"'{bench}' cannot be held against this machine: {difference}")
    return medians
