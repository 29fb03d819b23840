"""Outputs: whole or as they were, at whatever line the writer dies; one writer at a time; the permissions of a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from rir_deploy import staging
from rir_deploy.artifacts import atomic_file, atomic_folder
from rir_deploy.claim import claimed, claimed_folder
from rir_deploy.errors import UsageError
from rir_deploy.file_system import exchange, rename_new
from rir_deploy.onnx_file import graph_sha256, load_onnx, save_onnx
from tests.dying import deaths
from tests.test_files import model

posix = pytest.mark.skipif(os.name == "nt", reason="forks, locks and permissions are POSIX")


def write_folder(path: Path, content: str) -> None:
    with atomic_folder(path, force=True) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(content)


def read_folder(path: Path) -> set[str]:
    return {(path / name).read_text() for name in ("a", "b")}


@posix
@pytest.mark.parametrize("interrupt", [False, True], ids=["killed", "interrupted"])
@pytest.mark.parametrize("swaps", [True, False], ids=["exchange", "two renames"])
def test_a_folder_is_the_old_or_the_new_one_at_whatever_line_its_writer_ends(
    swaps: bool, interrupt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine"
    if not swaps:  # a file system that cannot exchange names
        monkeypatch.setattr(staging, "exchange", lambda *_: False)
    write_folder(path, "old")
    found = []
    for _ in deaths(lambda: write_folder(path, "new"), interrupt):
        with claimed(path):  # what every command begins with
            found.append(read_folder(path))
            assert sorted(os.listdir(tmp_path)) == [".engine.lock", "engine"]
        if swaps:
            assert found[-1] in ({"old"}, {"new"})
        write_folder(path, "old")
        assert os.listdir(tmp_path) == ["engine"]
    assert all(one in ({"old"}, {"new"}) for one in found)
    assert found.count({"old"}) > 40
    assert {"new"} in found  # it was killed after its work too
    assert read_folder(path) == {"new"}


@posix
def test_no_moment_without_the_folder_where_names_can_be_exchanged(tmp_path: Path) -> None:
    if not exchange_works(tmp_path):
        pytest.skip("this file system cannot exchange names")
    path = tmp_path / "engine"
    write_folder(path, "old")
    for _ in deaths(lambda: write_folder(path, "new")):
        assert read_folder(path) in ({"old"}, {"new"})  # as it lies there, with nothing put right


@posix
def test_a_graph_never_stands_beside_the_weights_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.onnx_file.EXTERNAL_DATA_BYTES", 10)
    path, old, new = tmp_path / "m.onnx", model(8), model(8)
    for value in new.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name=value.name)
    names = {graph_sha256(old): "old", graph_sha256(new): "new"}
    save_onnx(old, path, force=False)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert len(before) == 2
    found = []
    for _ in deaths(lambda: save_onnx(new, path, force=True)):
        found.append(names[graph_sha256(load_onnx(path))])
        for one in tmp_path.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
    assert found.count("old") > 10
    assert names[graph_sha256(load_onnx(path))] == "new"
    assert len(os.listdir(tmp_path)) == 2
    save_onnx(old, path, force=True)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_weights_that_a_copy_of_the_graph_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.onnx_file.EXTERNAL_DATA_BYTES", 10)
    path, copy = tmp_path / "m.onnx", tmp_path / "copy.onnx"
    save_onnx(model(8), path, force=False)
    copy.write_bytes(path.read_bytes())
    save_onnx(model(9), path, force=True)
    assert graph_sha256(load_onnx(copy)) == graph_sha256(model(8))
    copy.unlink()
    save_onnx(model(9), path, force=True)
    assert len(list(tmp_path.glob("*.data"))) == 1


@posix
@pytest.mark.parametrize("claim", [claimed, claimed_folder])
def test_the_second_process_is_refused_and_a_dead_one_stands_in_no_ones_way(
    claim: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "out"
    hold = (
        "import sys; from pathlib import Path; from rir_deploy import claim\n"
        f"with claim.{claim.__name__}(Path({str(path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        words = rf"'{path}' is being written by another process \({holder.pid}\)"
        with pytest.raises(UsageError, match=words), claim(path):  # type: ignore[attr-defined]
            pass
        holder.kill()
    with claim(path):  # type: ignore[attr-defined]
        pass
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_folders_that_only_a_claim_needed_go_with_it(tmp_path: Path) -> None:
    with claimed(tmp_path / "very" / "deep" / "out"), claimed_folder(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []
    with claimed(tmp_path / "very" / "deep" / "out"):
        (tmp_path / "very" / "deep" / "out").touch()
    assert (tmp_path / "very" / "deep" / "out").is_file()


@posix
def test_a_claim_holds_for_its_thread_and_once(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with claimed(tmp_path / "out"):
                pass
        except UsageError as error:
            refused.append(str(error))

    with claimed(tmp_path / "out"), claimed(tmp_path / "." / "out"), claimed(tmp_path / "another"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert "another thread of this process" in refused[0]
    assert os.listdir(tmp_path) == []


@posix
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_appears_meanwhile_is_not_replaced_without_force(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    write = atomic_file if kind == "file" else atomic_folder
    with pytest.raises(UsageError, match="meanwhile"), write(path, force=False) as temporary:
        overtaken(temporary if kind == "file" else temporary / "a", path)
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


@posix
def test_renames(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.mkdir()
    with pytest.raises(FileExistsError):
        rename_new(one, other)
    if exchange(one, other):
        assert other.read_text() == "1"
        assert one.is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "none", tmp_path / "neither")


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_and_folders_follow_the_umask_whoever_wrote_them(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with atomic_file(tmp_path / "file", force=False) as temporary:
            temporary.touch(mode=0o600)  # as safetensors makes its files
        with atomic_folder(tmp_path / "folder", force=False) as folder:
            (folder / "inner").mkdir(mode=0o700)
            (folder / "inner" / "file").touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {str(one.relative_to(tmp_path)): one.stat().st_mode & 0o777 for one in tmp_path.rglob("*")}
    files, folders = 0o666 & ~mask, 0o777 & ~mask
    assert modes == {"file": files, "folder": folders, "folder/inner": folders, "folder/inner/file": files}


@posix
def test_a_file_that_is_replaced_passes_its_permissions_on(tmp_path: Path) -> None:
    for mode in (0o640, 0o604, 0o600, 0o664):
        (tmp_path / "file").touch()
        (tmp_path / "file").chmod(mode)
        with atomic_file(tmp_path / "file", force=True) as temporary:
            temporary.write_text("new")
        assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@posix
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    for name in ("elsewhere", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "file").symlink_to("../elsewhere/file")
    (tmp_path / "here" / "folder").symlink_to("../elsewhere/folder")
    for content in ("1", "2"):
        with atomic_file(tmp_path / "here" / "file", force=True) as temporary:
            temporary.write_text(content)
        write_folder(tmp_path / "here" / "folder", content)
        assert (tmp_path / "elsewhere" / "file").read_text() == content
        assert read_folder(tmp_path / "elsewhere" / "folder") == {content}
    assert all(one.is_symlink() for one in (tmp_path / "here").iterdir())
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["file", "folder"]


@posix
def test_a_device_or_a_pipe_is_no_file_to_replace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(UsageError, match="a device or a pipe"), atomic_file(path, force=True):
            pass
    assert not Path(os.devnull).is_file()


def overtaken(temporary: Path, path: Path) -> None:
    temporary.write_text("second")
    path.write_text("first")


def exchange_works(folder: Path) -> bool:
    for name in ("x", "y"):
        (folder / name).touch()
    works = exchange(folder / "x", folder / "y")
    for name in ("x", "y"):
        (folder / name).unlink()
    return works
