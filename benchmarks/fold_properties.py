"""The properties of the fold over thousands of random graphs of the family.

    python benchmarks/fold_properties.py --count 5000 --seed 0 -o benchmarks/results/fold_properties.json

For every graph: the folded one computes the same (onnx's reference evaluator, float64), costs no more multiply-adds
and stores no more weights, folds to itself, and comes out the same to the byte. Exits 1 if any graph fails.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rir_deploy.bench.machine import read_machine
from rir_deploy.fold import FoldResult, fold
from tests.fold.family import Family, build, sample
from tests.fold.graphs import relative_error

TOLERANCE = 1e-9
LEFTOVERS = {"Add", "Concat", "Split", "Slice", "Pad", "BatchNormalization", "Mul", "AveragePool"}


@dataclass
class Tally:
    """What has been found so far."""

    graphs: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    worst_error: float = 0.0
    errors_by_decade: Counter[int] = field(default_factory=Counter)
    nodes: list[int] = field(default_factory=lambda: [0, 0])
    convs: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, family: Family, result: FoldResult, error: float, broken: list[str]) -> None:
        self.graphs += 1
        self.worst_error = max(self.worst_error, error)
        self.errors_by_decade[int(f"{max(error, 1e-17):.0e}".split("e")[1])] += 1
        for total, before, after in (
            (self.nodes, result.before.nodes, result.after.nodes),
            (self.convs, result.before.convs, result.after.convs),
        ):
            total[0] += before
            total[1] += after
        if broken:
            self.failures.append({"family": asdict(family), "broken": broken, "error": error})


def to_bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def broken_properties(family: Family) -> tuple[FoldResult, float, list[str]]:
    """The result, its relative error, and the properties that do not hold."""
    model = build(family)
    untouched = to_bytes(model)
    result = fold(model)
    error = relative_error(model, result.model)
    again = fold(result.model)
    folded = to_bytes(result.model)
    holds = {
        "same function": error <= TOLERANCE,
        "input unchanged": to_bytes(model) == untouched,
        "no more multiply-adds": result.after.macs <= result.before.macs,
        "no more weight bytes": result.after.weight_bytes <= result.before.weight_bytes,
        "idempotent": not again.modified and to_bytes(again.model) == folded,
        "deterministic": to_bytes(fold(model).model) == folded,
        "modified": result.modified,
        "valid": is_valid(result.model),
    }
    if family.outer == "none":
        holds["one convolution a block"] = result.after.convs == 2 + 2 * len(family.layers)
        holds["nothing left over"] = not result.after.ops.keys() & LEFTOVERS
    return result, error, [name for name, holding in holds.items() if not holding]


def is_valid(model: ir.Model) -> bool:
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except onnx.checker.ValidationError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rng, tally, start = random.Random(arguments.seed), Tally(), time.perf_counter()
    for number in range(1, arguments.count + 1):
        family = sample(rng)
        tally.add(family, *broken_properties(family))
        if number % 100 == 0:
            print(f"{number} graphs, {len(tally.failures)} failures, worst {tally.worst_error:.1e}", file=sys.stderr)
    report = {
        "machine": read_machine().to_dict(),
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "graphs": tally.graphs,
        "failures": tally.failures,
        "worst_relative_error": tally.worst_error,
        "errors_by_decade": {f"1e{decade}": count for decade, count in sorted(tally.errors_by_decade.items())},
        "nodes": dict(zip(("before", "after"), tally.nodes, strict=True)),
        "convs": dict(zip(("before", "after"), tally.convs, strict=True)),
    }
    text = json.dumps(report, indent=2)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
