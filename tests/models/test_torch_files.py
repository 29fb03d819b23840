"""PyTorch files that grow when they are read, or hold objects of other classes."""

from __future__ import annotations

import argparse
import datetime
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rir_deploy.errors import InputError
from rir_deploy.models.tensor_files import read_tensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


def repacked(path: Path, method: int) -> Path:
    """The same archive with its members compressed."""
    out = path.with_name("packed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", method) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info.filename))
    return out


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_inflates_is_refused_unread(method: int, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(8 * 2**20)}, tmp_path / "a.pt")
    path = repacked(tmp_path / "a.pt", method)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match="compresses its member 'a/"):
        read_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_members_that_lie_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(50_000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        info = next(one for one in archive.infolist() if one.filename.endswith("data/0"))
        for number in range(9):
            twin = zipfile.ZipInfo(f"{info.filename}{number}")
            twin.header_offset, twin.file_size, twin.compress_size, twin.CRC = (
                info.header_offset,
                info.file_size,
                info.compress_size,
                info.CRC,
            )
            archive.filelist.append(twin)
        archive._didModify = True
    with pytest.raises(InputError, match=r"members of .* claim \d+ bytes"):
        read_tensors(path)


class Sized:
    def __reduce__(self) -> tuple[Any, ...]:
        return (bytearray, (3 * 10**9,))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_asks_for_memory(new: bool, tmp_path: Path) -> None:
    torch.save({**STATE, "x": Sized()}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    assert (tmp_path / "a.pt").stat().st_size < 5000
    began = time.perf_counter()
    with pytest.raises(InputError, match="a bytearray"):
        read_tensors(tmp_path / "a.pt")
    assert time.perf_counter() - began < 0.5  # three gigabytes take longer


def test_a_program_is_no_state_dict(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(InputError, match="TorchScript program"):
        read_tensors(tmp_path / "a.pt")


OBJECTS = [
    (np.float64(0.9), "multiarray.scalar"),
    (np.ones(3), "multiarray._reconstruct"),
    (argparse.Namespace(lr=1), "argparse.Namespace"),
    (datetime.date(2020, 1, 1), "datetime.date"),
    (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    (print, "print"),
]


@pytest.mark.parametrize(("value", "name"), OBJECTS, ids=[name for _, name in OBJECTS])
@pytest.mark.parametrize("new", [True, False])
def test_the_class_of_a_refused_object_is_named(value: object, name: str, new: bool, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "more": value}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match=r"save model.state_dict\(\) alone") as caught:
        read_tensors(tmp_path / "a.pt")
    message = str(caught.value)
    assert name in message
    for advice in ("weights_only", "add_safe_globals", "two options", "\x1b", "\n", "allowlist"):
        assert advice not in message


def test_aliases_by_the_hundred_thousand(tmp_path: Path) -> None:
    shared = torch.arange(10_000.0)
    torch.save({f"w{index}": shared for index in range(200_000)}, tmp_path / "a.pt")
    began = time.perf_counter()
    found = read_tensors(tmp_path / "a.pt").tensors
    assert time.perf_counter() - began < 15  # they hold 8 GB, were each of them looked at
    assert len(found) == 200_000


def test_views_that_overlap_hold_no_more_than_the_file(tmp_path: Path) -> None:
    shared = torch.arange(100_000.0)
    torch.save({f"w{index}": shared[index:] for index in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"claim \d+ bytes, more than it has"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "version", "byteorder"])
def test_a_member_without_content_is_told_of_in_whole_words(member: str, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as cut:
        for name in whole.namelist():
            cut.writestr(name, b"" if name.endswith(f"/{member}") else whole.read(name))
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path / "b.pt")
    told = str(caught.value).partition("(")[2].rpartition(");")[0]
    cause = str(caught.value.__cause__)
    assert all(word in [*cause.split(), "...", "EOFError"] for word in told.split()), told


@pytest.mark.parametrize("length", [7, 11, 13])
def test_a_long_reason_of_torch_ends_with_a_whole_word(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(" ".join(["w" * length] * 200))

    torch.save(STATE, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path / "a.pt")
    told = str(caught.value).partition("(")[2].partition(")")[0].split()
    assert set(told) == {"w" * length, "..."}
    assert len(told) < 60
