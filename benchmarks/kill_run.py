"""A run that is killed at random moments, again and again: resumed, it has to end as one that was left alone.

    python benchmarks/kill_run.py --kills 50 --seed 0 -o benchmarks/results/kill_run.json

`rir-deploy run` on a tiny random RiR for the digits: every precision, ONNX Runtime, the ranking of the layers, the
unfolded network beside it; no timing. Its whole process group gets SIGKILL at a moment drawn evenly over the time
that all the work takes, up to three times in one folder; then it is resumed. Every file has to be there and no other,
byte for byte; of what holds a clock's time (manifests, records) all else. Exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rir_deploy.bench.machine import read_machine
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
from rir_deploy.models.rir import RiR
from rir_deploy.pipeline.plan import read_plan
from rir_deploy.pipeline.run import run_plan
from rir_deploy.recipe import load_recipe, packaged_recipes
from tests.pipeline.killing import contents, kill_run

PLAN = """
recipe = "digits.toml"
checkpoint = "model.safetensors"
backends = ["onnxruntime"]
[bench]
duration_s = 0
"""
KILLS_A_RUN = 3


def prepare(folder: Path) -> Path:
    """The plan, with its checkpoint and its recipe beside it."""
    torch.manual_seed(0)
    network = RiR(RiRConfig(10, 1, (8, 8), stem=(4, 4), stages=(Stage(4, 4, 1), Stage(6, 6, 1, 2))))
    record = CheckpointRecord(recipe=load_recipe("digits").to_dict())
    save_checkpoint(folder / "model.safetensors", network, record=record)
    recipe = packaged_recipes()["digits"].read_text().replace("samples = 512", "samples = 64")
    (folder / "digits.toml").write_text(recipe)
    (folder / "deploy.toml").write_text(PLAN)
    return folder / "deploy.toml"


def one_trial(plan: Path, folder: Path, moments: list[float], whole: dict[str, str]) -> dict[str, Any]:
    """Kill a run at each moment and resume it; what differs then from the run that was left alone."""
    ended = [kill_run(plan, folder, moment) for moment in moments]
    record = run_plan(read_plan(plan), folder)
    found = contents(folder)
    differs = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
    verified = record["passed"] and all(engine["status"] == "verified" for engine in record["engines"])
    return {"kills": [asdict(one) for one in ended], "differs": differs, "verified": verified}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rng, started = random.Random(arguments.seed), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        plan = prepare(Path(name))
        alone = kill_run(plan, Path(name) / "whole", 600)
        assert not alone.killed
        whole = contents(Path(name) / "whole")
        trials: list[dict[str, Any]] = []
        while (kills := sum(kill["killed"] for trial in trials for kill in trial["kills"])) < arguments.kills:
            moments = [rng.uniform(0, alone.seconds) for _ in range(min(KILLS_A_RUN, arguments.kills - kills))]
            trials.append(one_trial(plan, Path(name) / "run", moments, whole))
            shutil.rmtree(Path(name) / "run")
            print(kills, trials[-1], flush=True)
    wrong = [trial for trial in trials if trial["differs"] or not trial["verified"]]
    steps = Counter(kill["step"] for trial in trials for kill in trial["kills"] if kill["killed"])
    result = {
        "machine": read_machine().to_dict(),
        "seed": arguments.seed,
        "kills": kills,
        "trials": len(trials),
        "work_seconds": round(alone.seconds, 2),
        "files": len(whole),
        "after_step": dict(steps),
        "wrong": wrong,
        "seconds": round(time.perf_counter() - started, 1),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{kills} kills in {len(trials)} runs, {len(wrong)} with another end, {result['seconds']} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
