"""The report of a run folder: its record in, an HTML file out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rir_deploy.artifacts import atomic_file, check_output
from rir_deploy.errors import InputError, UsageError
from rir_deploy.report.html import render_run
from rir_deploy.report.schema import Run, read_run
from rir_deploy.report.summary import summarize
from rir_deploy.strict_data import parse_json

RECORD_NAME, REPORT_NAME = "run.json", "report.html"


@dataclass(frozen=True)
class Written:
    """A report that was written; ``passed`` is the verdict it gives on the run."""

    path: Path
    size_bytes: int
    sha256: str
    passed: bool
    sentence: str

    def to_dict(self) -> dict[str, object]:
        return {
            "report": str(self.path),
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "passed": self.passed,
            "summary": self.sentence,
        }


def open_run(path: Path) -> Run:
    """The record of a run by its folder, or by the file itself.

    Raises:
        UsageError: there is no such folder or file.
        InputError: the folder holds no record of a run, or a malformed one.
    """
    if not path.exists():
        raise UsageError(f"'{path}' is not a folder; name the folder of a run, or its {RECORD_NAME}")
    record = path / RECORD_NAME if path.is_dir() else path
    return read_run(_read_json(record), str(record))


def write_report(run_dir: Path, output: Path | None = None, *, force: bool = False) -> Written:
    """Write the report of the run in a folder, by default beside its record.

    Raises:
        UsageError: there is no such folder, or the output exists or cannot be written.
        InputError: the folder holds no record of a run, or a malformed one.
        BackendError: jinja2 or matplotlib is not installed.
    """
    run = open_run(run_dir)
    path = output or (run_dir if run_dir.is_dir() else run_dir.parent) / REPORT_NAME
    check_output(path, force=force)
    data = render_run(run).encode("utf-8")
    with atomic_file(path, force=force) as temporary:
        temporary.write_bytes(data)
    summary = summarize(run)
    return Written(path, len(data), hashlib.sha256(data).hexdigest(), summary.passed, summary.sentence)


def _read_json(path: Path) -> object:
    try:
        data: object = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"'{path.parent}' is not the folder of a run: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not readable JSON; repeat the run") from error
    return data
