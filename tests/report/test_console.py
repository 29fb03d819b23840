"""What a terminal shows is what was handed over."""

from __future__ import annotations

import pytest

from rir_deploy.report.console import print_table


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title [bold]", ("a [x]", "b"), [('pip install "rir-deploy[rtx]"', 1), ("[/red]", 2)])
    out = capsys.readouterr().out
    for text in ("title [bold]", "a [x]", 'pip install "rir-deploy[rtx]"', "[/red]"):
        assert text in out
