"""A run with a roofline: in the record, read by the report, and not measured twice."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.pipeline import run_roofline
from rir_deploy.pipeline.plan import BenchPlan, Plan, read_plan
from rir_deploy.pipeline.roofline import RooflineRequest, roofline_files
from rir_deploy.pipeline.roofline_measure import MeasureOptions
from rir_deploy.pipeline.run import run_plan
from rir_deploy.report.schema import read_run
from rir_deploy.roofline.shapes import Shape
from tests.conftest import Made

TINY = MeasureOptions(seconds=0, rounds=1, shapes=(Shape(8, 8, (8, 8), repeats=2),), working_sets=(1 << 17,))


def test_a_plan_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "deploy.toml"
    path.write_text('recipe = "digits"\n[bench]\nroofline = true\n')
    assert read_plan(path).bench.roofline
    path.write_text('recipe = "digits"\n[bench]\n')
    assert not read_plan(path).bench.roofline


def test_a_run_holds_its_engines_against_the_machine(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run_roofline, "RooflineRequest", partial(RooflineRequest, measure=TINY))
    calls: list[Any] = []
    monkeypatch.setattr(run_roofline, "roofline_files", lambda *given: (calls.append(given), roofline_files(*given))[1])
    bench = BenchPlan(duration_s=0.01, rounds=1, threads=1, roofline=True)
    plan = Plan("digits", made.checkpoint, precisions=("fp32",), backends=("onnxruntime",), stages=False, bench=bench)
    record = run_plan(plan, tmp_path / "run", report=False)
    found = read_run(record).roofline
    assert found is not None
    assert [one.engine for one in found.engines] == ["engines/onnxruntime-fp32"]
    assert found.engines[0].macs == record["export"]["fold"]["macs"]["after"]
    again = run_plan(plan, tmp_path / "run", report=False)
    assert again["roofline"] == record["roofline"]
    assert len(calls) == 1
