"""Signals: a command that is ended leaves no process, no temporary file and no half of an output behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rir_deploy.cli.signals import Interrupted, interruptible
from tests.conftest import Made, Runner

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command in ``folder``, its temporary files in a folder of their own."""
    (folder / "tmp").mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "rir_deploy", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(found: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    """Processes whose parent, or its parent, is ``pid``, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_command_that_works_alone(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "run.json")  # that nobody writes to: the command waits for it
    with started(tmp_path, "report", "run", "-o", "deep/page.html") as process:
        wait_for((tmp_path / "deep" / ".page.html.lock").exists)
        time.sleep(0.2)
        process.send_signal(number)
        process.send_signal(number)  # one often comes twice
        out, err = process.communicate(timeout=30)
    assert process.returncode == CODES[number]
    assert json.loads(out) == {"error": {"message": "interrupted", "exit_code": CODES[number]}}
    assert err.strip() == "rir-deploy: interrupted"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["run", "run.json", "tmp"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_end_with_the_command(number: signal.Signals, made: Made, tmp_path: Path) -> None:
    line = ("bench", made.engine, "--duration", 60, "--rounds", 1)
    with started(tmp_path, *line) as process:
        wait_for(lambda: any((tmp_path / "tmp").iterdir()) and descendants(process.pid))
        workers = descendants(process.pid)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    wait_for(lambda: not any(map(is_alive, workers)), 10)
    if number != signal.SIGKILL:
        assert process.returncode == json.loads(out)["error"]["exit_code"] == CODES[number]
        assert list((tmp_path / "tmp").iterdir()) == []


def test_an_ignored_signal_stays_ignored_and_handlers_are_put_back() -> None:
    """As nohup asks for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != term
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == term
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_disturb_the_cleaning_up() -> None:
    cleaned: list[bool] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            cleaned.append(True)

    with pytest.raises(Interrupted) as caught, interruptible():
        work()
    assert caught.value.number == signal.SIGTERM
    assert cleaned == [True]


def test_a_signal_that_python_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a callback, or where a library catches everything."""
    monkeypatch.setattr("rir_deploy.cli.signals._QUIET_SECONDS", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    reached = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except BaseException:
            reached.append("dropped")
        time.sleep(10)
        reached.append("never")

    with pytest.raises(Interrupted) as caught, interruptible():
        work()
    assert caught.value.number == signal.SIGTERM
    assert reached == ["dropped"]
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_on_its_way_at_the_end_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are put back one by one, which takes a moment on a busy machine."""
    monkeypatch.setattr("rir_deploy.cli.signals._QUIET_SECONDS", 0.01)
    before, install = signal.getsignal(signal.SIGTERM), signal.signal

    def slowly(number: int, handler: object) -> object:
        if number == signal.SIGTERM and handler == before:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGALRM)
        return install(number, handler)  # type: ignore[arg-type]

    def work() -> None:
        monkeypatch.setattr(signal, "signal", slowly)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with pytest.raises(Interrupted), interruptible():
        work()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_two_builds_into_one_folder(made: Made, tmp_path: Path) -> None:
    """One of them is refused, or both come one after the other; the engine is whole."""
    from rir_deploy.engines.manifest import check_engine

    line = ("build-engine", made.onnx, "-o", "engine", "--backend", "onnxruntime", "--force")
    with started(tmp_path, *line) as one, started(tmp_path, *line) as other:
        found = [process.communicate(timeout=120) for process in (one, other)]
    codes = sorted((one.returncode, other.returncode))
    assert codes in ([0, 2], [0, 0])
    if codes == [0, 2]:
        assert any("is being written by another process" in err for _, err in found)
    check_engine(tmp_path / "engine")
    assert sorted(os.listdir(tmp_path)) == ["engine", "tmp"]


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_an_interrupted_command_says_so_on_one_line(
    number: signal.Signals, made: Made, rir: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(number)

    monkeypatch.setattr("rir_deploy.pipeline.inspect.inspect_file", interrupted)
    ran = rir("inspect", made.onnx)
    assert (ran.code, ran.out, ran.err) == (CODES[number], "", "rir-deploy: interrupted\n")
