"""The figures in docs/reliability.md are those of benchmarks/results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import fuzz, rtx_builds

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def test_tampered_bundles() -> None:
    text, found = section("Tampered bundles"), result("tamper_bundle")
    assert found["failures"] == []
    assert found["longest_seconds"] < 0.1
    assert f"{found['mutants']:,} tampered bundles" in text
    assert f"{found['size_bytes']['tiny']:,} bytes" in text
    assert f"{found['size_bytes']['bundle'] / 1000:.0f} kB" in text
    rows = [int(cell.replace(",", "")) for cell in re.findall(r"\| ([\d,]+) \|$", text, re.M)]
    assert sum(rows) == found["mutants"]
    kinds = found["by_kind"]
    assert rows[:3] == [
        kinds["every bit flipped"],
        kinds["every length"],
        sum(v for k, v in kinds.items() if ":" in k and "flip" in k),
    ]
    assert rows[-1] == sum(count for kind, count in kinds.items() if kind.startswith("forged"))


def test_an_environment_for_a_device() -> None:
    text, found = section("An environment for a device"), result("edge_environment")
    for name in ("edge", "edge with cuda-python", "host"):
        assert f"| {found[name]['bytes'] / 1e6:,.0f} MB | {len(found[name]['packages'])} |" in text
    assert not {"torch", "onnxscript", "scikit-learn", "matplotlib"} & found["edge"]["packages"].keys()
    for package in ("onnxruntime", "sympy", "numpy"):
        assert f"{package} ({found['edge']['packages'][package]['bytes'] / 1e6:.0f} MB" in text


def test_what_tensorrt_rtx_makes() -> None:
    text, found = section("What TensorRT-RTX makes of the full-size RiR"), result("rtx_builds")
    assert rtx_builds.to_table(found) in text
    assert found["tensorrt_rtx"].startswith("1.7.1")
    for row in found["rows"]:
        assert f"{row['targets'][0]}" in text
        turing = "sm75" in row["targets"]
        assert (row["refused"] is not None) == (turing and row["precision"] == "int8")


def test_mutated_files() -> None:
    text, found = section("Mutated files"), result("fuzz")
    assert (found["failed"], found["failures"]) == (0, [])
    assert found["longest_seconds"] < found["limit_seconds"] == 10
    assert f"{found['mutants']:,} mutated files, none with another outcome" in text
    assert f"the longest took {found['longest_seconds']:.1f} s" in text
    assert f"{found['memory_bytes'] >> 30} GiB" in text
    assert fuzz.to_table(found) in text
    assert sum(row["mutants"] for row in found["by_target"].values()) == found["mutants"] >= 5000


def test_killed_runs() -> None:
    text, found = section("Killed runs"), result("kill_run")
    assert found["wrong"] == []
    assert found["kills"] == sum(found["after_step"].values()) >= 50
    assert f"{found['kills']} times at random moments, in {found['trials']} folders" in text
    assert f"All {found['files']} files" in text
    for step, count in found["after_step"].items():
        assert f"{step or 'none'} ({count})" in text
