"""The bytes of a bundle: one form, and whatever differs from it is refused before anything is used."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rir_deploy.bundle import Bundle, open_bundle
from rir_deploy.bundle.golden import IMAGES, OUTPUTS, read_array, write_array
from rir_deploy.errors import InputError, UsageError
from tests.bundle.forge import INDEX, Forgery, member, tiny_bundle
from tests.bundle.forgeries import ARRAY_FORGERIES, INDEX_FORGERIES, NAMES, ZIP_FORGERIES, Change


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for one bundle; what is unpacked lands in "unpacked" below it, where nothing may stay."""
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "unpacked"))
    return tmp_path


def refusal(path: Path) -> str:
    """The one sentence that a bundle is refused with; nothing is left, inside the folder for unpacking or out of it."""
    before = sorted(path.parent.parent.rglob("*"))
    with pytest.raises(InputError) as caught, open_bundle(path):
        raise AssertionError("it was opened")
    assert sorted(path.parent.parent.rglob("*")) == before
    message = str(caught.value)
    assert message.startswith(f"the bundle '{path}' is refused: ")
    assert "\n" not in message
    return message


def test_what_is_packed_is_read_back(tiny: Path, place: Path) -> None:
    with open_bundle(tiny) as bundle:
        folder = bundle.folder
        assert folder.parent == place / "unpacked"
        for one in bundle.index.members:
            assert member(one.name, (folder / one.name).read_bytes()) == one
        assert [item.name for item in bundle.choose()] == ["fp32", "any-fp32"]
        assert bundle.images().tolist() == np.arange(8).reshape(2, 2, 2, 1).tolist()
        assert bundle.outputs(bundle.index.reference).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert not folder.exists()


def test_it_is_a_zip_as_others_write_it(tiny: Path, tmp_path: Path) -> None:
    """Byte for byte what zipfile writes, told to store, with no dates."""
    assert Forgery.of(tiny).relist().write(tmp_path / "same.zip").read_bytes() == tiny.read_bytes()
    with zipfile.ZipFile(tiny) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == INDEX


def test_equal_content_is_equal_bytes(tiny: Path, tmp_path: Path) -> None:
    assert tiny_bundle(tmp_path).read_bytes() == tiny.read_bytes()


def test_a_flipped_byte_is_refused(tiny: Path, place: Path) -> None:
    """Members, headers, index and comment; benchmarks/tamper_bundle.py takes every position."""
    whole, bits = tiny.read_bytes(), random.Random(0)
    path = place / "flipped.zip"
    accepted = []
    for position in {*range(40), *range(0, len(whole), 11), *range(len(whole) - 90, len(whole))}:
        data = bytearray(whole)
        data[position] ^= 1 << bits.randrange(8)
        path.write_bytes(data)
        try:
            with open_bundle(path):
                accepted.append(position)
        except InputError:
            pass
    assert accepted == []
    assert os.listdir(place / "unpacked") == []


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_differs_is_refused(tiny: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut, insert, replace and repeat pieces anywhere."""
    whole = tiny.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 400)))
    piece = data.draw(st.binary(max_size=60) | st.just(whole[start:end] * 2))
    changed = whole[:start] + piece + whole[end:]
    if changed == whole:
        return
    path = tmp_path_factory.mktemp("changed") / "changed.zip"
    path.write_bytes(changed)
    refusal(path)


def test_every_truncation_is_refused(tiny: Path, place: Path) -> None:
    whole = tiny.read_bytes()
    for length in (0, 1, 29, 30, 40, 41, 500, len(whole) // 2, len(whole) - 65, len(whole) - 1):
        (place / "short.zip").write_bytes(whole[:length])
        refusal(place / "short.zip")


def test_members_that_change_places_are_refused(tiny: Path, place: Path) -> None:
    forged = Forgery.of(tiny)
    one, other = "engines/any-fp32/engine.bin", "graphs/fp32.onnx"
    forged.files[one], forged.files[other] = forged.files[other], forged.files[one]
    assert one in refusal(forged.write(place / "swapped.zip"))


@pytest.mark.parametrize("name", [*NAMES, "é", "a\0b", "x" * 201])
def test_a_name_that_could_leave_the_folder(name: str, tiny: Path, place: Path) -> None:
    """With hashes, sizes and zip headers all as they should be."""
    forged = Forgery.of(tiny).relist()
    forged.rename("graphs/fp32.onnx", name)
    assert "plain relative" in refusal(forged.write(place / "evil.zip"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change", ZIP_FORGERIES)
def test_what_zip_files_can_hold_besides(change: Change, tiny: Path, place: Path) -> None:
    forged = Forgery.of(tiny).relist()
    change(forged)
    refusal(forged.write(place / "odd.zip"))


def test_an_encrypted_member_is_refused(tiny: Path, place: Path) -> None:
    """The flag in both headers of a member; zipfile cannot write one."""
    data = bytearray(tiny.read_bytes())
    local = data.find(b"PK\3\4", data.find(b"PK\3\4") + 1)
    central = data.find(b"PK\1\2", data.find(b"PK\1\2") + 1)
    data[local + 6] |= 1
    data[central + 8] |= 1
    (place / "locked.zip").write_bytes(data)
    assert "header" in refusal(place / "locked.zip")


@pytest.mark.parametrize(("change", "words"), INDEX_FORGERIES.items())
def test_an_index_that_does_not_hold(change: Change, words: str, tiny: Path, place: Path) -> None:
    forged = Forgery.of(tiny).relist()
    change(forged)
    assert re.search(words, refusal(forged.write(place / "forged.zip")))


def test_sizes_that_only_headers_claim(tiny: Path, place: Path) -> None:
    """The index claims 4 GB of itself; nothing is read or written for it."""
    data = bytearray(tiny.read_bytes())
    struct.pack_into("<2L", data, 18, 2**32 - 1, 2**32 - 1)
    (place / "claims.zip").write_bytes(data)
    assert "over the limit" in refusal(place / "claims.zip")


def test_what_does_not_fit_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.bundle.archive.MAX_BYTES", 1000)
    with pytest.raises(InputError, match="over the limit of 1000"):
        tiny_bundle(tmp_path)
    assert not (tmp_path / "tiny.zip").exists()


def test_a_disk_that_is_full_is_no_fault_of_the_bundle(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rir_deploy.bundle.archive._copy", full)
    with pytest.raises(UsageError, match="No space left on device; TMPDIR"), open_bundle(tiny):
        pass
    assert os.listdir(place / "unpacked") == []


def test_other_zips_and_other_files(place: Path) -> None:
    with zipfile.ZipFile(place / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", b"")
    assert "does not begin with index.json" in refusal(place / "photos.zip")
    (place / "text.zip").write_text("hello")
    assert "does not begin with index.json" in refusal(place / "text.zip")
    for name in ("missing.zip", "unpacked"):
        with pytest.raises(UsageError), open_bundle(place / name):
            pass


@pytest.fixture
def forged_and_opened(tiny: Path, place: Path) -> Iterator[Callable[[str, bytes], Bundle]]:
    """A bundle whose bytes are in order, with another member in the place of one."""
    with ExitStack() as stack:

        def open_with(name: str, data: bytes) -> Bundle:
            forged = Forgery.of(tiny).relist()
            forged.files[name] = data
            return stack.enter_context(open_bundle(forged.write(place / "forged.zip")))

        yield open_with


def array_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        array_bytes(np.array([{"a": 1}], dtype=object)),  # a pickle
        array_bytes(np.zeros((2, 2, 2, 1), np.float32)),
        array_bytes(np.zeros((2, 2, 2), np.uint8)),
        array_bytes(np.zeros((3, 2, 2, 1), np.uint8)),
        array_bytes(np.zeros((2, 2, 2, 1), np.uint8))[:-1],
        array_bytes(np.zeros((2, 2, 2, 1), np.uint8)).replace(b"(2, 2, 2, 1)", b"(2, 2, 2**9)"),
        array_bytes(np.zeros((2, 2, 2, 1), np.uint8)).replace(b"(2, 2, 2, 1)", b"(99999999,1)"),
        b"\x93NUMPY\1\0\xff\xff{",
        b"",
    ],
)
def test_golden_images_are_read_without_trust(data: bytes, forged_and_opened: Callable[[str, bytes], Bundle]) -> None:
    bundle = forged_and_opened("golden/images.npy", data)
    with pytest.raises(InputError):
        bundle.images()


@pytest.mark.parametrize("shape", ARRAY_FORGERIES)
def test_a_shape_that_no_array_has(shape: str, tiny: Path, place: Path) -> None:
    forged = Forgery.of(tiny).relist()
    ARRAY_FORGERIES[shape](forged)
    with open_bundle(forged.write(place / "shaped.zip")) as bundle, pytest.raises(InputError, match="no shape that"):
        bundle.outputs(bundle.index.reference)


def test_answers_must_be_one_an_image(forged_and_opened: Callable[[str, bytes], Bundle]) -> None:
    bundle = forged_and_opened("golden/fp32.npy", array_bytes(np.zeros((1, 2), "<f4")))
    with pytest.raises(InputError, match="'fp32' to each golden image"):
        bundle.outputs(bundle.index.reference)


def test_arrays_come_back_exactly(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    write_array(tmp_path / "a.npy", array[:, ::-1], OUTPUTS)
    assert np.array_equal(read_array(tmp_path / "a.npy", OUTPUTS, 2), array[:, ::-1])
    assert np.array_equal(np.load(tmp_path / "a.npy"), array[:, ::-1])
    with pytest.raises(InputError, match="not uint8"):
        read_array(tmp_path / "a.npy", IMAGES, 2)


def test_the_comment_is_the_hash_of_the_index(tiny: Path) -> None:
    with zipfile.ZipFile(tiny) as archive:
        assert archive.comment.decode() == hashlib.sha256(archive.read(INDEX)).hexdigest()


def test_own_words_speak_of_the_bundle(tiny: Path) -> None:
    with pytest.raises(InputError, match=f"^bad: '{tiny}/graphs/fp32.onnx'$"), open_bundle(tiny) as bundle:
        raise InputError(f"bad: '{bundle.folder / 'graphs/fp32.onnx'}'")
