"""The wheel carries all it needs: built, installed outside the tree, and put to work there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(command: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the tests are not in a checkout")
def test_the_demo_runs_from_an_installed_wheel(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = tmp_path / "source"
    # A copy, so that building leaves nothing in the tree.
    files = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0")
    for name in filter(None, files):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path), str(source)], tmp_path)
    (wheel,) = tmp_path.glob("rir_deploy-*.whl")
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], work)
    where = _run([sys.executable, "-c", "import rir_deploy; print(rir_deploy.__file__)"], work, PYTHONPATH=str(site))
    assert where.startswith(str(site))
    out = _run(
        [sys.executable, "-m", "rir_deploy", "demo", "-o", str(work / "demo"), "--json"], work, PYTHONPATH=str(site)
    )
    record = json.loads(out)
    assert record["passed"]
    assert record["model"]["recorded_top1"] >= 0.97
    assert record["export"]["fold"]["convs"] == {"before": 20, "after": 6}
    backends = {engine["backend"] for engine in record["engines"]}
    assert {"onnxruntime", "openvino"} <= backends
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        rows = [engine for engine in record["engines"] if engine["backend"] == "tensorrt-rtx"]
        assert len(rows) == 3
        assert all(row["verify"]["simulation"] == (row["status"] == "built, not run") for row in rows)
    assert {engine["precision"] for engine in record["engines"]} == {"fp32", "fp16", "int8"}
    assert all(engine["verify"]["passed"] for engine in record["engines"])
    assert (work / "demo" / "report.html").stat().st_size > 10_000
    assert sorted(path.name for path in work.iterdir()) == ["demo"]
