"""rir-deploy report: the file it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from rir_deploy.report.html import render
from tests.conftest import Runner
from tests.report.sample import sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps(sample()), encoding="utf-8")
    return run


def test_it_writes_beside_the_record(folder: Path, rir: Runner) -> None:
    ran = rir("report", folder)
    assert ran.code == 0, ran.err
    assert (folder / "report.html").read_bytes().decode() == render(sample())
    assert sorted(os.listdir(folder)) == ["report.html", "run.json"]
    assert "run passed: All 2 engines" in ran.out
    assert "report.html" in ran.out


def test_json_and_another_place(folder: Path, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "new" / "page.html"
    ran = rir("report", folder, "-o", output, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["report"] == str(output)
    assert ran.json["passed"] is True
    assert ran.json["size_bytes"] == output.stat().st_size
    assert ran.json["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()


def test_an_existing_page_is_kept_unless_forced(folder: Path, rir: Runner) -> None:
    (folder / "report.html").write_text("mine")
    ran = rir("report", folder)
    assert ran.code == 2
    assert "--force" in ran.err
    assert (folder / "report.html").read_text() == "mine"
    assert rir("report", folder, "--force").code == 0
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_failed_run_is_written_down_too(folder: Path, rir: Runner) -> None:
    (folder / "run.json").write_text(json.dumps(sample() | {"passed": False}))
    ran = rir("report", folder)
    assert ran.code == 0
    assert "run FAILED: The run did not pass." in ran.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not readable JSON"),
        ("\udcff", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ("[]", "it must be an object"),
        ('{"schema": 3}', "it has no 'tool'"),
        ('{"schema": 1}', "has schema 1, and this version reads schema 3; repeat the run"),
    ],
)
def test_a_record_that_cannot_be_read(folder: Path, rir: Runner, text: str, words: str) -> None:
    (folder / "run.json").write_bytes(text.encode("utf-8", errors="surrogateescape"))
    ran = rir("report", folder)
    assert ran.code == 5
    assert words in ran.err
    assert "run.json" in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert os.listdir(folder) == ["run.json"]


def test_a_folder_without_a_record(tmp_path: Path, rir: Runner) -> None:
    ran = rir("report", tmp_path)
    assert ran.code == 5
    assert "has no run.json" in ran.err
    ran = rir("report", tmp_path / "absent")
    assert ran.code == 2
    assert "is not a folder" in ran.err
