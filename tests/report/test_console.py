"""What a terminal shows is what was handed over."""

from __future__ import annotations

import re
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


def test_a_table_too_wide_for_the_terminal_is_told_row_by_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, rows = tuple(f"column {index}" for index in range(12)), [tuple(f"cell {index}" for index in range(12))]
    print_table("piped", columns, rows)
    assert "┃" in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    for width, wide in ((80, False), (140, True)):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table("shown", columns, rows)
        lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        assert all(len(line) <= width for line in lines)
        assert ("┃" in "".join(lines)) == wide
        assert wide or " ".join(lines[1:]).startswith("cell 0: column 1 cell 1, column 2 cell 2")
