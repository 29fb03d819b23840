"""A runtime tells nobody of what it runs, and writes nothing into a user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Made


@pytest.mark.skipif(sys.platform == "win32", reason="the folder is asked of the system there")
def test_nothing_is_kept_in_the_home_folder(made: Made, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 keeps a device's identifier and a database of events there, unless it is told not to."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "rir_deploy", "verify", str(made.onnx), str(made.engine), "--data", "digits:test"]
    subprocess.run(command, check=True, capture_output=True, env={**environment, **places})
    assert list((tmp_path / "home").rglob("*")) == []
    assert list((tmp_path / "tmp").rglob("*")) == []
