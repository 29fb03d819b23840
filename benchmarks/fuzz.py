"""Mutated files of every kind that a command reads: refused in a sentence, or taken and right.

    python benchmarks/fuzz.py --count 6000 --seed 0 -o benchmarks/results/fuzz.json

The seeds are a random RiR for 8x8 digits, its graphs, engine, range table and bundle, checkpoints of three kinds,
images, a recipe and a plan; see tests/fuzz for what is done to them and what may come of it. Every mutant has a seed of
its own: ``--only SEED`` with its ``--target`` tries that one again. Exits 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rir_deploy.bench.machine import read_machine
from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.models import preset
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.pipeline.plan import BenchPlan, Plan
from rir_deploy.pipeline.run import run_plan
from rir_deploy.recipe import load_recipe
from tests.fuzz.campaign import MAX_SECONDS, Campaign, Tally, chosen
from tests.fuzz.pool import Worker
from tests.fuzz.seeds import Seeds, make_seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import MEMORY_BYTES

KEPT_FAILURES = 50


def seeds_in(folder: Path) -> Seeds:
    """The seeds in a new folder, from a run that is made for them."""
    work = folder / "work"
    checkpoint = work / "model.safetensors"
    torch.manual_seed(0)
    network = RiR(preset("rir-digits", in_channels=1, image_size=(8, 8)))
    save_checkpoint(checkpoint, network, record=CheckpointRecord(recipe=load_recipe("digits").to_dict()))
    plan = Plan("digits", checkpoint, backends=("onnxruntime",), bench=BenchPlan(duration_s=0))
    run_plan(plan, work / "run", report=False)
    assert run_command(cli, ["bundle", str(work / "run"), "-o", str(work / "bundle.zip")]) == 0
    return make_seeds(folder / "seeds", work / "run", checkpoint, work / "bundle.zip")


def to_dict(tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "machine": read_machine().to_dict(),
        "mutants": tally.mutants,
        "by_target": {
            name: {"mutants": sum(counts.values()), "outcomes": dict(sorted(counts.items()))}
            for name, counts in tally.outcomes.items()
        },
        "by_mutation": {name: dict(sorted(counts.items())) for name, counts in tally.mutations.items()},
        "failures": tally.failures[:KEPT_FAILURES],
        "failed": len(tally.failures),
        "limit_seconds": MAX_SECONDS,
        "memory_bytes": MEMORY_BYTES,
        "longest_seconds": round(tally.longest_seconds, 2),
        "seconds": round(seconds, 1),
    }


def to_table(result: dict[str, Any]) -> str:
    """One line a kind of file."""
    columns = ("file", "mutants", "refused", "taken, and right", "taken, incomparable", "wrong")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name, row in result["by_target"].items():
        outcomes = row["outcomes"]
        refused = sum(count for outcome, count in outcomes.items() if outcome.startswith("exit code"))
        right = outcomes.get("taken", 0) + outcomes.get("gate failed", 0)
        other = outcomes.get("taken, incomparable", 0)
        wrong = row["mutants"] - refused - right - other
        cells = (row["mutants"], refused, right, other, wrong)
        lines.append(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder")
    parser.add_argument("--only", type=int, metavar="SEED", help="try one mutant again")
    parser.add_argument("--target", choices=TARGETS, help="the target of --only, or the only one")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary) / "fuzz").resolve()
        reused = (folder / "seeds").exists()
        seeds = Seeds(folder / "seeds") if reused else seeds_in(folder)
        started = time.perf_counter()
        cases = [(arguments.target, arguments.only)] if arguments.only else chosen(arguments.count, arguments.seed)
        with Worker(folder) as worker:
            campaign = Campaign(folder, seeds, worker)
            for target, seed in cases:
                if arguments.target in (None, target):
                    problems = campaign.try_one(target, seed)
                    if problems:
                        print(f"{target} {seed}: {problems}", flush=True)
    result = {"seed": arguments.seed, **to_dict(campaign.tally, time.perf_counter() - started)}
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(to_table(result))
    print(f"{result['mutants']} mutants, {result['failed']} failures, {result['seconds']} s")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
