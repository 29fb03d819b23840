"""The power of verify: faults that must be caught and put in their place, harmless variations that must pass.

    python benchmarks/parity_power.py -o benchmarks/results/parity_power.json
    python benchmarks/parity_power.py --checkpoint rir_cifar10_w16.pt --recipe cifar10 --calibration cifar10-train.zip \
        --test cifar10-test.zip -o benchmarks/results/parity_power.json

The first network is trained on the digits by their recipe; the second, if there is one, is given. Every fault is put
into a good model by itself, and ``rir-deploy verify --layers`` is run on it: it must exit with 3 and name the block.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.parity_harmless import variations
from benchmarks.parity_injections import injections
from benchmarks.parity_network import Network, must
from rir_deploy.bench.machine import read_machine

STAGES = {
    "fp32": "the FP32 graph, traced and folded",
    "preprocessing": "the preprocessing, in the graph and recorded",
    "int8": "the Q/DQ graph, both flavours",
}


def detect(network: Network, blocks: str, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an injected fault; ``known`` ones are not put in again."""
    rows = []
    for one in injections(network, blocks):
        head = {
            "network": network.name,
            "stage": one.stage,
            "form": one.form,
            "fault": one.fault,
            "expected": list(one.expected),
        }
        done = next((row for row in known if head.items() <= row.items()), None)
        if done is not None:
            rows.append(done)
            continue
        outcome = network.verify(one.model)
        row = {
            **head,
            "exit_code": outcome.code,
            "by": outcome.by,
            "found": outcome.block,
            "caught": outcome.code == 3,
            "localised": outcome.code == 3 and outcome.block in one.expected,
        }
        rows.append(row)
        if not row["localised"]:
            print("MISSED", json.dumps(row), flush=True)
    return rows


def pass_harmless(network: Network, small: bool) -> list[dict[str, Any]]:
    """One row a harmless variation."""
    rows = []
    for name, outcome in variations(network, small):
        layers = outcome.record.get("layers") or {}
        found = layers.get("rows", [])
        # What reads a tensor that has another meaning is given the wrong input: its own error says nothing.
        judged = not any(row["verdict"] == "differs" for row in found)
        errors = [row["own_error"] for row in found if judged and row["own_error"] is not None]
        row = {
            "network": network.name,
            "images": outcome.record.get("images"),
            "variation": name,
            "precision": outcome.record.get("gate", {}).get("precision"),
            "exit_code": outcome.code,
            "passed": outcome.code == 0,
            "layers": outcome.layers,
            "note": layers.get("note", ""),
            "worst_own_error": max(errors, default=None),
        }
        rows.append(row)
        if not row["passed"]:
            print("ALARM", json.dumps(row), json.dumps(outcome.record.get("failures")), flush=True)
    return rows


def summary(faults: list[dict[str, Any]], harmless: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, by stage and by what caught them."""
    stages: dict[str, dict[str, int]] = {}
    for stage in dict.fromkeys(row["stage"] for row in faults):
        rows = [row for row in faults if row["stage"] == stage]
        by = Counter("+".join(row["by"]) for row in rows)
        stages[stage] = {
            "kinds": len({row["fault"] for row in rows}),
            "injected": len(rows),
            "caught": sum(row["caught"] for row in rows),
            "localised": sum(row["localised"] for row in rows),
            "by_outputs": sum(count for key, count in by.items() if "outputs" in key),
            "by_layers_alone": by["layers"],
            "by_records_alone": by["records"],
        }
    worst: dict[str, float] = {}
    for row in harmless:
        if row["worst_own_error"] is not None:
            worst[row["precision"]] = max(worst.get(row["precision"], 0.0), row["worst_own_error"])
    passed = sum(row["passed"] for row in harmless)
    return {"stages": stages, "harmless": len(harmless), "passed": passed, "worst_own_error": worst}


def markdown(found: dict[str, Any]) -> str:
    """The table of docs/parity.md."""
    keys = ("kinds", "injected", "caught", "localised", "by_outputs", "by_layers_alone", "by_records_alone")
    titles = ("kinds", "injected", "exit 3", "right block", "outputs tell", "only layers tell", "only records tell")
    lines = ["| faults of | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for stage, counts in found["stages"].items():
        lines.append(f"| {STAGES[stage]} | " + " | ".join(f"{counts[key]:,}" for key in keys) + " |")
    worst = ", ".join(f"{100 * error:.0f} % in {name.upper()}" for name, error in found["worst_own_error"].items())
    lines += ["", f"Harmless variations: {found['passed']:,} of {found['harmless']:,} pass."]
    return "\n".join([*lines, f"Their worst layers reach so much of what is allowed: {worst}."])


def _harmless(network: tuple[Any, ...], folder: Path, small: bool) -> list[dict[str, Any]]:
    return pass_harmless(_network(network, folder), small)


def _faults(network: tuple[Any, ...], folder: Path, blocks: str, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return detect(_network(network, folder), blocks, known)


def _network(network: tuple[Any, ...], folder: Path) -> Network:
    name, checkpoint, *rest = network
    return Network(name, checkpoint, folder, *rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a second network, beside the one of the digits")
    parser.add_argument("--recipe", help="its recipe")
    parser.add_argument("--calibration", help="images that its INT8 ranges are found on")
    parser.add_argument("--test", help="labelled images, disjoint from those")
    parser.add_argument("--add-to", type=Path, help="an earlier output, of which nothing is done again")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    faults: list[dict[str, Any]] = []
    harmless: list[dict[str, Any]] = []
    known: dict[str, Any] = {"faults": [], "harmless": []}
    if arguments.add_to is not None:
        known = json.loads(arguments.add_to.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        folder = Path(name)
        must("train", "digits", "-o", folder / "digits")
        checkpoint = folder / "digits/model.safetensors"
        networks: list[tuple[tuple[Any, ...], str, bool]] = [
            (("digits", checkpoint, "digits", None, None), "all", False)
        ]
        if arguments.checkpoint is not None:
            given = (arguments.checkpoint.stem, arguments.checkpoint, arguments.recipe, arguments.test)
            networks.append(((*given, arguments.calibration), "some", True))
        jobs = []
        for index, (network, blocks, small) in enumerate(networks):  # side by side, in folders of their own
            kept = [row for row in known["harmless"] if row["network"] == network[0]]
            harmless += kept
            jobs.append(
                (
                    None if kept else pool.submit(_harmless, network, folder / f"harmless-{index}", small),
                    pool.submit(_faults, network, folder / f"faults-{index}", blocks, known["faults"]),
                )
            )
        for passed, caught in jobs:
            harmless += [] if passed is None else passed.result()
            faults += caught.result()
    found = summary(faults, harmless)
    result = {"machine": read_machine().to_dict(), "summary": found, "faults": faults, "harmless": harmless}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
