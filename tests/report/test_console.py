"""What a terminal shows is what was handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from rir_deploy.cli.run import print_run
from rir_deploy.report.console import print_table
from tests.report.sample import sample


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title [bold]", ("a [x]", "b"), [('pip install "rir-deploy[rtx]"', 1), ("[/red]", 2)])
    out = capsys.readouterr().out
    for text in ("title [bold]", "a [x]", 'pip install "rir-deploy[rtx]"', "[/red]"):
        assert text in out


def test_a_run_prints_its_two_modes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    run = sample()
    run["bench"]["results"].append(run["bench"]["results"][1] | {"mode": "pipelined", "streams": 2})
    print_run(run, Path("run"))
    out = capsys.readouterr().out
    latency, throughput = out.index("Latency of one call"), out.index("Throughput: 2 in flight")
    assert "pipelined" not in out[latency:throughput]
    assert "pipelined" in out[throughput:]
