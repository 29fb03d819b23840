"""The report stands alone: it needs a run's record and nothing of the stages that made it."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import rir_deploy.report
from tests.test_architecture import PLAIN, imports

FOLDER = Path(rir_deploy.report.__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_it_imports_no_stage(path: Path) -> None:
    allowed = {"errors", "artifacts", "report"} | PLAIN
    # For a type only: what draws a progress bar has the pipeline's signature.
    assert imports(path) <= (allowed | {"pipeline"} if path.name == "console.py" else allowed)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, rir_deploy.report.write; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"matplotlib", "jinja2", "numpy", "torch", "rich"}


def test_templates_are_package_data() -> None:
    names = {entry.name for entry in files("rir_deploy.report").joinpath("templates").iterdir()}
    assert names == {"base.html.jinja", "compare.html.jinja", "macros.html.jinja", "report.html.jinja", "style.css"}
