"""A job in a process of its own: answers, errors and deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rir_deploy import errors
from rir_deploy.bench.process import run_job

WORKER = "tests.bench.odd_worker"


def test_every_job_has_a_process_of_its_own() -> None:
    answers = [run_job(WORKER, {"do": "answer", "given": [1.5, "é", None]}, "x") for _ in range(2)]
    assert answers[0]["given"] == [1.5, "é", None]
    assert len({os.getpid(), *(answer["pid"] for answer in answers)}) == 3


def test_the_child_imports_from_where_the_parent_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the current folder that is named like a module must not run."""
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the json module')")
    monkeypatch.setattr(sys, "path", [os.path.abspath(entry) for entry in sys.path])
    monkeypatch.chdir(tmp_path)
    assert run_job(WORKER, {"do": "answer"}, "x")["path"] == sys.path


def test_what_is_printed_does_not_get_into_the_answer() -> None:
    assert run_job(WORKER, {"do": "chatter", "given": 3}, "x")["given"] == 3


@pytest.mark.parametrize("name", ["UsageError", "GateError", "BackendError", "InputError", "RirDeployError"])
def test_errors_arrive_as_what_they_were(name: str) -> None:
    with pytest.raises(errors.RirDeployError) as caught:
        run_job(WORKER, {"do": "raise", "error": name, "message": "the reason"}, "x")
    assert type(caught.value).__name__ == name
    assert str(caught.value) == "the reason"


def test_running_out_of_memory_is_the_inputs_fault() -> None:
    with pytest.raises(errors.InputError, match="memory"):
        run_job(WORKER, {"do": "memory"}, "x")


def test_a_bug_arrives_with_its_trace() -> None:
    with pytest.raises(errors.RirDeployError, match=r"(?s)seven by nought.*odd_worker.py") as caught:
        run_job(WORKER, {"do": "bug"}, "x")
    assert caught.value.exit_code == 1


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_death_by_signal_names_engine_signal_and_last_words() -> None:
    with pytest.raises(errors.BackendError, match=r"of 'eng' at batch 1 died with SIGSEGV: last words"):
        run_job(WORKER, {"do": "kill", "signal": int(signal.SIGSEGV)}, "'eng' at batch 1")
    with pytest.raises(errors.BackendError, match=r"SIGKILL .*out of memory"):
        run_job(WORKER, {"do": "kill", "signal": int(signal.SIGKILL)}, "x")


def test_a_worker_that_leaves_without_an_answer_is_a_death() -> None:
    with pytest.raises(errors.BackendError, match="died with exit code 7"):
        run_job(WORKER, {"do": "exit"}, "x")
    with pytest.raises(errors.BackendError, match="No module named"):
        run_job("tests.bench.no_such_worker", {}, "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_the_real_worker_refuses_what_is_no_job(text: str) -> None:
    command = [sys.executable, "-m", "rir_deploy.pipeline.bench_worker"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["exit_code"] == 5


def test_a_full_disk_in_a_worker_is_no_bug() -> None:
    with pytest.raises(errors.UsageError, match="cannot write: No space left on device"):
        run_job(WORKER, {"do": "full"}, "x")


_INTERRUPTED = """
import signal, sys
from rir_deploy.bench.process import run_job
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    run_job(sys.argv[1], {"do": "wait", "note": sys.argv[2]}, "x")
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_an_interruption_takes_the_worker_its_child_and_its_files_along(tmp_path: Path) -> None:
    """In a process of its own: a library in this one may have put a handler of its own in the place of Python's."""
    note = tmp_path / "note"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _INTERRUPTED, WORKER, str(note)]
    with subprocess.Popen(command, env=environment) as process:
        end = time.monotonic() + 60
        while not note.exists() or not note.read_text():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 7
    *pids, name = note.read_text().split()
    assert not os.path.exists(name)
    end = time.monotonic() + 10
    while any(_is_there(int(pid)) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.01)


def _is_there(pid: int) -> bool:
    """A child that nobody waited for yet is dead as well."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
