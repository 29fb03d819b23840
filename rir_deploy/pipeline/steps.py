"""A run folder that knows what is done: every step is recorded with what went in and what came out.

A step is done when its record names the same inputs and its files still have the recorded hashes; then it is not run
again. Records are written after the files, one atomic rename each, so a run that is killed continues where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rir_deploy.artifacts import atomic_file, check_output, sha256_file, sha256_json
from rir_deploy.claim import FOLDER_LOCK
from rir_deploy.errors import InputError, UsageError
from rir_deploy.staging import remove_leftovers
from rir_deploy.strict_data import parse_json

RECORD_NAME, RUN_NAME, REPORT_NAME = "steps.json", "run.json", "report.html"
_SUBFOLDERS = ("training", "graphs", "engines")
FORMAT = 1


@dataclass(frozen=True)
class StepRecord:
    """``key`` is the sha256 of what the step depends on; ``files`` maps a path in the folder to its sha256."""

    key: str
    files: dict[str, str]
    parents: tuple[str, ...]
    result: dict[str, Any]


class RunFolder:
    """The steps of one run, by name, in the order they were done."""

    def __init__(self, path: Path) -> None:
        """Open a run's folder, or make it; what a killed run left half-written in it is removed.

        Raises:
            UsageError: the folder cannot be written, or holds files that are no run's.
            InputError: its record is damaged.
        """
        self.path = path
        self._asked: dict[str, None] = {}
        self.steps = _read(path / RECORD_NAME) if _is_run(path) else {}
        for folder in (path, *(path / name for name in _SUBFOLDERS)):
            remove_leftovers(folder)
        self._write()  # from now on the folder is known as a run's, whatever happens to the first step

    def step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        make: Callable[[], dict[str, Any]],
        parents: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Do a step unless it is done, and return its result (plain data).

        Args:
            inputs: all that the result depends on, as plain data; files by their hashes.
            outputs: files and folders that ``make`` writes, relative to the run folder.
            parents: hashes of the files that the outputs are made from.
        """
        self._asked[name] = None
        key = sha256_json({"name": name, "inputs": dict(inputs)})
        known = self.steps.get(name)
        if known is not None and known.key == key and self._intact(known, outputs):
            return known.result
        result = json.loads(json.dumps(make()))
        files = {path: sha256_file(self.path / path) for output in outputs for path in self._files(output)}
        self.steps[name] = StepRecord(key, files, tuple(parents), result)
        self._write()
        return dict(result)

    def sha256(self, step: str, file: str) -> str:
        return self.steps[step].files[file]

    def files(self) -> list[dict[str, Any]]:
        """Every file of the steps asked for so far, with hash, size in bytes and the hashes it was made from."""
        return [
            {
                "path": path,
                "sha256": sha,
                "size_bytes": (self.path / path).stat().st_size,
                "parents": list(record.parents),
            }
            for record in map(self.steps.__getitem__, self._asked)
            for path, sha in record.files.items()
        ]

    def _files(self, output: str) -> list[str]:
        path = self.path / output
        if not path.is_dir():
            return [output]
        return sorted(str(file.relative_to(self.path)) for file in path.rglob("*") if file.is_file())

    def _intact(self, record: StepRecord, outputs: Sequence[str]) -> bool:
        """Whether all that the step writes is there, as it was written."""
        covered = all(any(f == o or f.startswith(f"{o}/") for f in record.files) for o in outputs)
        paths = {self.path / path: sha for path, sha in record.files.items()}
        return covered and all(path.is_file() and sha256_file(path) == sha for path, sha in paths.items())

    def _write(self) -> None:
        data = {
            "format": FORMAT,
            "steps": {
                name: {
                    "key": s.key,
                    "files": s.files,
                    "parents": list(s.parents),
                    "result": s.result,
                    "result_sha256": sha256_json(s.result),
                }
                for name, s in self.steps.items()
            },
        }
        with atomic_file(self.path / RECORD_NAME, force=True) as temporary:
            temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")


def is_own(path: PurePath) -> bool:
    """Whether a path, relative to the folder of a run, is of a file that the run makes there."""
    return str(path) in (RECORD_NAME, RUN_NAME, REPORT_NAME) or path.parts[0] in _SUBFOLDERS


def _is_run(path: Path) -> bool:
    """Whether ``path`` holds a run already; an empty or missing folder is made ready for one."""
    check_output(path, force=True)
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = [name for name in os.listdir(path) if name != FOLDER_LOCK]
    except OSError as error:
        raise UsageError(f"cannot write the run to '{path}': {error.strerror}; choose another folder") from error
    if names and RECORD_NAME not in names:
        raise UsageError(
            f"'{path}' holds files and is not the folder of a run; name an empty or a new folder, "
            "so that nothing in it is lost"
        )
    return RECORD_NAME in names


def _read(path: Path) -> dict[str, StepRecord]:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        return {
            str(name): StepRecord(
                str(step["key"]),
                {str(file): str(sha) for file, sha in step["files"].items()},
                tuple(str(sha) for sha in step["parents"]),
                dict(step["result"]),
            )
            for name, step in data["steps"].items()
            # A result that is not what was written is no result: the step is done again.
            if step["result_sha256"] == sha256_json(step["result"])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged ({error!r}); remove it to start the run anew") from error
