"""Writes docs/roofline.md from benchmarks/results/: python benchmarks/roofline_doc.py"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import RESULTS, ROOT, table

# Of an engine, the layers that lose most.
LAYERS = 6
# A median over this multiple of the fastest call is not the engine's doing.
BUSY = 1.2

INTRODUCTION = """# Roofline

Written by `benchmarks/roofline_doc.py` from `benchmarks/results/`; `benchmarks/roofline.py` and
`benchmarks/roofline_attempts.py` make the figures.

`rir-deploy roofline ENGINE...` says how far an engine is from what this machine can do, and which of its layers hold
it back. It takes engines of ONNX Runtime and OpenVINO, and ONNX files; `--json` prints the record, `--from
bench.json` takes the times that `bench --json` printed, and `[bench] roofline = true` puts it into a run and its
report.

## How it is measured

- **Ceilings.** The most multiply-adds a second that any runtime here reaches in a precision, over a set of shapes:
  3x3 convolutions of 64 to 512 channels, products of matrices (1x1 convolutions) of 256 to 2048, and every
  convolution of the network itself. Each is a graph of its own with nothing else in it, chained up to 16 times so
  that the call itself does not count; INT8 as Q/DQ that fuses, with integers in and out. The fastest call of all
  rounds counts: what was reached once is what the machine can do. BF16 is measured too, as what an FP16 engine could
  be computed in.
- **Bytes.** Copies of several sizes by all threads at once, read and written bytes together. A layer's activations
  move at the speed of a copy of their own size, since the next layer reads them at once, out of a cache if they fit;
  its weights at that of a copy as large as all weights, since all others are read before they are again.
- **Least time** of a layer: the longer of multiply-adds over the ceiling and bytes over the bandwidth. Whatever is
  between the layers counts nothing, since it can be fused. The *share* is the least time of all layers over the
  median call. It is a strict one: the ceiling is a fastest call, the engine's time a median. Beside it stands the
  share of the fastest call.
- A share over 102 % is flagged: then the ceiling was measured too low. So is a machine that runs its best shape at
  less than 90 % of the ceiling when the engines are timed.
- **Measured time of a layer**: the runtime's own profiler, median of 30 calls or of as many as half a second has.
  Profiling costs some time itself.

Ceilings are kept in `$XDG_CACHE_HOME/rir-deploy` (or `~/.cache/rir-deploy`), by CPU, cores, threads and versions of
the runtimes; what is damaged, edited or of another machine is measured anew. `--no-cache` neither reads nor writes
it.
"""


def engines(record: dict[str, Any]) -> str:
    titles = ["backend", "precision", "batch", "median, ms", "least, ms", "of the ceiling", "fastest call", "GMAC/s"]
    rows: list[list[object]] = [
        [
            row["backend"],
            row["precision"],
            row["batch"],
            f"{row['median_ms']:.3f}",
            f"{row['ceiling_ms']:.3f}",
            f"{row['share']:.1%} ({min(row['shares']):.1%} to {max(row['shares']):.1%})",
            f"{row['fastest_share']:.1%}",
            f"{row['gmac_per_s']:.1f}",
        ]
        for row in record["engines"]
    ]
    return table(titles, rows)


def best(record: dict[str, Any]) -> str:
    """The best INT8 engine at batch 1, by both measures."""
    rows = [row for row in record["engines"] if row["precision"] == "int8" and row["batch"] == 1]
    row = max(rows, key=lambda one: one["fastest_share"])
    return (
        f"The goal for INT8 at batch 1 is 90 % of the ceiling. Like for like, a fastest call against a fastest call, "
        f"{row['backend']} reaches {row['fastest_share']:.1%}. Its median call, against the same ceiling, reaches "
        f"{row['share']:.1%}, and from {min(row['shares']):.1%} to {max(row['shares']):.1%} in all that was measured: "
        "cores that are shared with other machines take their part of it.\n"
    )


def ceilings(record: dict[str, Any]) -> str:
    rows: list[list[object]] = [
        [one["precision"], one["backend"], f"{one['gmac_per_s']:.1f} GMAC/s", one["shape"]]
        for one in record["ceilings"]
    ]
    rows += [
        ["copy", "-", f"{one['gb_per_s']:.1f} GB/s", f"{one['working_set_bytes'] / 2**20:g} MiB in use"]
        for one in record["copies"]
    ]
    return table(["kind", "backend", "most reached", "by"], rows)


def layers(row: dict[str, Any]) -> str:
    timed = [one for one in row["layers"] if one["measured_ms"]]
    worst = sorted(timed, key=lambda one: one["ceiling_ms"] - one["measured_ms"])[:LAYERS]
    rows: list[list[object]] = [
        [
            f"`{one['node']}`",
            f"{one['macs'] / 1e6:.1f}",
            f"{one['measured_ms']:.3f}",
            f"{one['ceiling_ms']:.3f}",
            f"{one['measured_ms'] - one['ceiling_ms']:.3f}",
            f"{one['ceiling_ms'] / one['measured_ms']:.0%}",
            one["bound"],
        ]
        for one in worst
    ]
    titles = ["layer", "MMAC", "measured, ms", "least, ms", "lost, ms", "of the ceiling", "bound"]
    lost = sum(one["measured_ms"] - one["ceiling_ms"] for one in timed)
    together = sum(one["measured_ms"] for one in timed) + row["rest_ms"]
    words = (
        f"All {len(timed)} layers lose {lost:.3f} ms together; everything else that runs (rounding the input, changes "
        f"of layout, the average) takes {row['rest_ms']:.3f} ms. That is {together:.3f} ms in all with the profiler "
        f"on, which costs time itself; the median call without it is {row['median_ms']:.3f} ms."
    )
    return f"{table(titles, rows)}\n{words}"


def attempts(record: dict[str, Any]) -> str:
    rows: list[list[object]] = [
        [
            row["runtime"],
            row["change"],
            "not run" if row["best_ms"] is None else f"{row['best_ms']:.3f}",
            "-" if row["ratio"] is None else f"{row['ratio']:.3f}",
        ]
        for row in record["rows"]
    ]
    return table(["runtime", "change", "best median, ms", "ratio of medians"], rows)


def document() -> str:
    record = json.loads((RESULTS / "roofline.json").read_text(encoding="utf-8"))
    machine = record["machine"]
    parts = [
        INTRODUCTION,
        "## The full-size RiR\n",
        f"{record['network']}, folded; {machine['cpu']} ({', '.join(machine['features'])}), "
        f"{record['threads']} threads. Measured {len(record['engines'][0]['shares'])} times over, ceilings and "
        "engines: the one with the median share, and the shares of all from the lowest to the highest. The INT8 "
        f"ceilings were {', '.join(f'{one:.0f}' for one in record['int8_ceilings_gmac_per_s'])} GMAC/s.\n",
        engines(record),
        best(record),
        "### Ceilings of this machine, the first time\n",
        ceilings(record),
    ]
    if any(row["median_ms"] > BUSY * row["fastest_ms"] for row in record["engines"]):
        parts.append(
            "**Beware: other programs had the processor meanwhile** (medians far over the fastest calls). Only the "
            "fastest calls say something of the engines; the goal of 90 % is not decided by this run.\n"
        )
    for row in record["engines"]:
        if row["precision"] == "int8" and row["batch"] == 1 and row["rest_ms"] is not None:
            parts += [f"### Where the time goes: INT8, batch 1, {row['backend']}\n", layers(row) + "\n"]
    parts += [f"Beware: {note}.\n" for note in record["notes"]]
    tried = RESULTS / "roofline_attempts.json"
    if tried.exists():
        parts += [
            "## What was tried to bring INT8 at batch 1 nearer to it\n",
            "Each change alone, in turns with the engine as it is, each in a process of its own; the ratio is the "
            "median over the rounds of (changed / as it is), under 1 is faster. *The same again* is the noise.\n",
            attempts(json.loads(tried.read_text(encoding="utf-8"))),
        ]
    return "\n".join(parts)


def main() -> None:
    (ROOT / "docs" / "roofline.md").write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
