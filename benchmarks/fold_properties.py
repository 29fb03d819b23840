"""The properties of the fold over thousands of random graphs: RiRs and their relatives, graphs of no family at all, and
graphs with nested graphs, computed constants and sizes that depend on the input.

    python benchmarks/fold_properties.py --count 5000 --seed 0 -o benchmarks/results/fold_properties.json

``--count`` graphs of each kind. For every graph: the folded one computes the same (onnx's reference evaluator,
float64; half of the last kind in ONNX Runtime, FP32, all of it at two sizes), costs no more multiply-adds and stores
no more weights, folds to itself, and comes out the same to the byte; a RiR without outer shortcuts is one convolution a
block. Exits 1 if any graph fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.own_process import write_report
from rir_deploy.bench.machine import read_machine
from rir_deploy.fold import FoldResult, fold
from tests.fold import random_graphs, random_open
from tests.fold.family import CHOICES, Family, build, sample
from tests.fold.graphs import relative_error
from tests.fold.random_open import OpenGraph

TOLERANCE = 1e-9
LEFTOVERS = {"Add", "Concat", "Split", "Slice", "Pad", "BatchNormalization", "Mul", "AveragePool"}


@dataclass
class Tally:
    """What has been found so far on the graphs of one kind."""

    graphs: int = 0
    folded: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    worst_error: float = 0.0
    nodes: list[int] = field(default_factory=lambda: [0, 0])
    convs: list[int] = field(default_factory=lambda: [0, 0])
    blocks: int = 0

    def add(self, source: Family | int, result: FoldResult | None, error: float, broken: list[str]) -> None:
        self.graphs += 1
        self.worst_error = max(self.worst_error, error)
        if result is not None:
            self.folded += result.modified
            self.blocks += result.blocks
            for total, before, after in (
                (self.nodes, result.before.nodes, result.after.nodes),
                (self.convs, result.before.convs, result.after.convs),
            ):
                total[0] += before
                total[1] += after
        if broken:
            graph = asdict(source) if isinstance(source, Family) else {"seed": source}
            self.failures.append({"graph": graph, "broken": broken, "error": error})

    def to_dict(self) -> dict[str, Any]:
        return {
            "graphs": self.graphs,
            "folded": self.folded,
            "failures": self.failures,
            "worst_relative_error": self.worst_error,
            "nodes": dict(zip(("before", "after"), self.nodes, strict=True)),
            "convs": dict(zip(("before", "after"), self.convs, strict=True)),
            "blocks": self.blocks,
        }


def to_bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def built(kind: str, source: Family | int) -> ir.Model | OpenGraph:
    if isinstance(source, Family):
        return build(source)
    return random_open.build(source) if kind == "open" else random_graphs.build(source)


def broken_properties(kind: str, source: Family | int) -> tuple[FoldResult | None, float, list[str]]:
    """The result, its relative error, and the properties that do not hold. No result where the fold raised."""
    graph = built(kind, source)
    model = graph.model if isinstance(graph, OpenGraph) else graph
    untouched = to_bytes(model)
    try:
        result = fold(model)
        again = fold(result.model)
    except Exception as error:
        return None, float("inf"), [f"crashed: {type(error).__name__}: {error}"[:300]]
    error = graph.error(result.model) if isinstance(graph, OpenGraph) else relative_error(model, result.model)
    folded = to_bytes(result.model)
    holds = {
        "same function": error <= (random_open.TOLERANCES[graph.dtype] if isinstance(graph, OpenGraph) else TOLERANCE),
        "input unchanged": to_bytes(model) == untouched,
        "no more multiply-adds": result.after.macs <= result.before.macs,
        "no more weight bytes": result.after.weight_bytes <= result.before.weight_bytes,
        "idempotent": not again.modified and to_bytes(again.model) == folded,
        "deterministic": to_bytes(fold(model).model) == folded,
        "valid": is_valid(result.model),
    }
    if isinstance(source, Family):
        holds["modified"] = result.modified
    if isinstance(source, Family) and source.outer == "none":
        layers = 2 * len(source.layers)
        holds["one convolution a block"] = result.after.convs == layers + 2
        # The stem is a block too, the head is none; where channels died, a block may have only one branch left.
        holds["blocks counted"] = result.blocks == layers + 1 or result.dead_channels > 0
        holds["nothing left over"] = not result.after.ops.keys() & LEFTOVERS
    return result, error, [name for name, holding in holds.items() if not holding]


def is_valid(model: ir.Model) -> bool:
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except onnx.checker.ValidationError:
        return False
    return True


def sources(count: int, seed: int) -> Iterator[tuple[str, Family | int]]:
    rng = random.Random(seed)
    for number in range(count):
        yield "family", sample(rng)
        yield "random", seed * 1_000_000 + number
        yield "open", seed * 1_000_000 + number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="graphs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    tallies, start = {kind: Tally() for kind in ("family", "random", "open")}, time.perf_counter()
    choices: dict[str, Counter[str]] = {name: Counter() for name in CHOICES}
    for kind, source in sources(arguments.count, arguments.seed):
        tallies[kind].add(source, *broken_properties(kind, source))
        if isinstance(source, Family):
            for name, counts in choices.items():
                counts[str(getattr(source, name))] += 1
        elif kind == "open" and tallies[kind].graphs % 100 == 0:
            found = {name: (len(t.failures), f"{t.worst_error:.1e}") for name, t in tallies.items()}
            print(f"{tallies[kind].graphs} of each kind: (failures, worst) {found}", file=sys.stderr)
    report = {
        "machine": read_machine().to_dict(),
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "tolerance": TOLERANCE,
        "tolerance_fp32": random_open.TOLERANCES[np.dtype(np.float32)],
        "kinds": {kind: tally.to_dict() for kind, tally in tallies.items()},
        "family": {name: dict(sorted(counts.items())) for name, counts in choices.items()},
    }
    write_report(report, arguments.output)
    return 1 if any(tally.failures for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
