"""A disk that is full, in every command: one sentence, exit code 2, nothing left, and --json prints an object."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rir_deploy.errors import InputError, UsageError
from rir_deploy.file_system import FULL, full_disk, scratch_folder, system_error, writing_to
from tests.conftest import Bundled, Made, Ran, Runner

# Commands with what they write, "out" being the place. Each makes more than the limit.
WRITING = (
    "fold {onnx} -o out/f.onnx",
    "build-engine {onnx} -o out/engine --backend onnxruntime",
    "build-engine {onnx} -o out/engine --backend openvino",
    "build-engine {bundle} -o out/engine --backend onnxruntime",
    "quantize {onnx} -o out/q.onnx --data digits:train --recipe digits --samples 16",
    "bundle {run} -o out/b.zip",
    "report {run} -o out/r.html",
    "report {run} --markdown out/r.md",
    "verify {onnx} {engine} --flips out/f.json",
    "verify {bundle}",
)
LIMIT = 1


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Files cannot grow beyond ``limit`` bytes: a write then fails as on a full disk (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def is_refused(ran: Ran, *words: str) -> None:
    assert ran.code == 2, ran.err
    assert ran.err.count("\n") == 1
    assert ran.json["error"] == {"message": ran.err.strip().removeprefix("rir-deploy: error: "), "exit_code": 2}
    assert all(word in ran.err for word in ("cannot", os.strerror(errno.EFBIG), *words)), ran.err


@pytest.mark.parametrize("line", WRITING)
def test_files_that_cannot_be_written(
    line: str, made: Made, bundled: Bundled, rir: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "openvino" in line:
        pytest.importorskip("openvino")
    if "-o out/r" in line:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name in ("tmp", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "f.json").write_text("[]")  # what is replaced stays as it was
    made_of = {"onnx": made.onnx, "engine": made.engine, "run": bundled.run, "bundle": bundled.file}
    arguments = line.format(**made_of).split()
    with small_files(LIMIT):
        ran = rir(*arguments, *(["--force"] if "--flips" in line else []), "--json")
    is_refused(ran)
    assert ".part" not in ran.err
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == ["out/f.json"]
    assert (tmp_path / "out" / "f.json").read_text() == "[]"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=str)
def test_stdout_that_is_full(flags: tuple[str, ...], made: Made) -> None:
    command = [sys.executable, "-m", "rir_deploy", "inspect", str(made.onnx), *flags]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "rir-deploy: error: cannot write to stdout: No space left on device; send it elsewhere\n"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [("| true", 0, ""), (">&-", 2, "stdout is closed"), ("2>&- >&-", 2, "")],
)
def test_stdout_that_nobody_reads_or_that_is_closed(redirection: str, code: int, words: str, made: Made) -> None:
    line = f"{sys.executable} -m rir_deploy inspect {made.onnx} --json {redirection}"
    done = subprocess.run(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == bool(words)


NATIVE = ("basic_ios::clear: iostream error", "Protobuf serialization failed.", "4000 requested and 17 written")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(code, os.strerror(code)) for code in FULL),
        OSError("4000000 requested and 262112 written"),
        *(RuntimeError(words) for words in NATIVE),
        RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
    ],
    ids=str,
)
def test_every_librarys_word_for_a_full_disk(error: Exception) -> None:
    for raised in (error, InputError("ONNX Runtime does not take it")):
        with pytest.raises(UsageError, match=r"^cannot write 'x': .*; make room"), writing_to("'x'"):
            raise raised from (None if raised is error else error)
    with pytest.raises(UsageError, match=r"temporary files.*TMPDIR"), scratch_folder():
        raise error


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "none"), ValueError("x"), RuntimeError("(os error 2)"), InputError("y")], ids=str
)
def test_what_is_no_full_disk_stays_what_it_is(error: Exception) -> None:
    assert full_disk(error) is None
    with pytest.raises(type(error)) as caught, writing_to("'x'"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("code", sorted(set(errno.errorcode) - {errno.EPIPE, errno.ESHUTDOWN}))
def test_any_refusal_of_the_system_is_one_sentence(
    code: int, made: Made, rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes from, and whichever it is."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "some\nfile")

    monkeypatch.setattr("rir_deploy.pipeline.inspect.inspect_file", refuse)
    ran = rir("inspect", made.onnx, "--json")
    assert (ran.code, ran.json["error"]["exit_code"]) == (2, 2)
    assert r"'some\nfile'" in ran.err
    assert str(system_error(OSError(code, os.strerror(code)))).count(os.strerror(code)) == 1


def test_a_bug_is_an_object_too(made: Made, rir: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("\x1b[31mseven")

    monkeypatch.setattr("rir_deploy.pipeline.inspect.inspect_file", fail)
    ran = rir("inspect", made.onnx, "--json")
    assert (ran.code, ran.json["error"]["exit_code"]) == (1, 1)
    assert "ZeroDivisionError: \\x1b[31mseven" in ran.err
    assert json.loads(ran.out)["error"]["message"].startswith("unexpected error")
