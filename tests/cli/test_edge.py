"""A device: numpy and one runtime, and no torch, exporter, plotting or data library to be found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bundled, Made

ROOT = Path(__file__).parents[2]
# Loaded by every Python that is started, the worker processes of bench among them. benchmarks/edge_environment.py
# does the same in an environment that was really installed.
BARE = """
import sys

ABSENT = {"torch", "onnxscript", "matplotlib", "jinja2", "sklearn", "scipy", "openvino", "tensorrt", "tensorrt_rtx"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""


@dataclass(frozen=True)
class Device:
    site: Path

    def __call__(self, *arguments: object) -> tuple[int, Any]:
        path = os.pathsep.join([str(self.site), str(ROOT)])
        command = [sys.executable, "-m", "rir_deploy", *map(str, arguments), "--json"]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BARE)
    return Device(tmp_path / "site")


def test_a_device_tests_builds_and_times_from_a_bundle(device: Device, bundled: Bundled, tmp_path: Path) -> None:
    code, tested = device("verify", bundled.file)
    assert code == 0, tested
    assert [row["status"] for row in tested["results"]] == ["passed"] * 6

    engine = tmp_path / "engine"
    code, built = device("build-engine", bundled.file, "-o", engine, "--int8")
    assert code == 0, built
    assert (built["backend"], built["precision"]) == ("onnxruntime", "int8")  # auto takes what is there

    quick = ("--warmup", 0, "--duration", 0, "--iterations", 2, "--rounds", 1, "--threads", 1)
    code, timed = device("bench", bundled.file, "--engine", "onnxruntime-fp32", engine, *quick)
    assert code == 0, timed
    assert [(row["precision"], row["status"]) for row in timed["results"]] == [("fp32", "ok"), ("int8", "ok")]


def test_what_needs_torch_says_so(device: Device, made: Made, tmp_path: Path) -> None:
    """The device of these tests really has none."""
    code, answer = device("export", made.checkpoint, "-o", tmp_path / "out.onnx")
    assert code == 4
    assert "torch is not installed" in answer["error"]["message"]
