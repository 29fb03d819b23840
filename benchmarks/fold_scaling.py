"""Time and memory of the fold over RiRs of growing depth, each in a process of its own, and the exponent of growth.

    python benchmarks/fold_scaling.py -o benchmarks/results/fold_scaling.json

A block is one generalized residual block of 16 + 16 channels at 8x8 (four convolutions, two batch norms, an identity).
Time covers `fold` alone, without its check; memory is the peak of the whole process, with and without the fold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.own_process import load, peak_gb, run_self, write_report
from rir_deploy.bench.machine import read_machine
from rir_deploy.fold import FoldOptions, fold
from tests.fold.family import Family, build

WIDTH = 16


def measure(blocks: int) -> dict[str, Any]:
    """Fold one RiR in this process."""
    model = build(Family(((WIDTH, WIDTH, 1),) * (blocks // 2)))
    built, start = peak_gb(), time.perf_counter()
    result = fold(model, FoldOptions(check=False))
    seconds = time.perf_counter() - start
    assert result.blocks == blocks + 1
    return {
        "blocks": blocks,
        "seconds": seconds,
        "peak_gb": peak_gb(),
        "peak_gb_before": built,
        "nodes": {"before": result.before.nodes, "after": result.after.nodes},
        "convs": {"before": result.before.convs, "after": result.after.convs},
    }


def median_of(blocks: int, repeats: int) -> dict[str, Any]:
    """The median of several processes."""
    runs = []
    for _ in range(repeats):
        runs.append(run_self(__file__, "--one", blocks))
        print(f"{blocks} blocks: {runs[-1]['seconds']:.2f} s, {runs[-1]['peak_gb']:.2f} GB", file=sys.stderr)
    return {**runs[0], **{key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak_gb")}}


def exponent(rows: list[dict[str, Any]]) -> float | None:
    """The slope of log(time) over log(blocks), by least squares."""
    if len(rows) < 2:
        return None
    logs = np.log([[row["blocks"], row["seconds"]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", type=int, nargs="*", default=[10, 30, 100, 300, 1000, 3000])
    parser.add_argument("--repeats", type=int, default=3, help="processes a size; the median is reported")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    before = load()
    rows = [median_of(blocks, arguments.repeats) for blocks in arguments.blocks]
    report = {"machine": read_machine().to_dict(), "load": before, "repeats": arguments.repeats, "rows": rows}
    write_report({**report, "exponent": exponent(rows)}, arguments.output)


if __name__ == "__main__":
    main()
