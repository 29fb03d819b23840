"""Folders and zips of images: the same layouts, each with what can go wrong with it."""

import hashlib
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rir_deploy.data import archive, decode, folder
from rir_deploy.data.sources import open_source
from rir_deploy.errors import InputError


def encode(value: int, format: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (4, 3), value if mode != "RGB" else (value, 2, 3)).save(buffer, format)
    return buffer.getvalue()


def write_folder(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def write_zip(root: Path, files: dict[str, bytes]) -> str:
    path = root / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return str(path)


both = pytest.mark.parametrize("write", [write_folder, write_zip])


@both
def test_class_folders_give_labels_in_the_order_of_their_names(write, tmp_path):
    files = {
        "dog/b.png": encode(20),
        "cat/z.png": encode(10),
        "dog/a.JPG": encode(30, "JPEG"),
        "notes.txt": b"hi",
    }
    source = open_source(write(tmp_path, files))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 1]
    assert source.labels.dtype == np.int64
    assert len(source) == 3
    np.testing.assert_array_equal(source.image(0), np.full((3, 4, 3), (10, 2, 3)))
    np.testing.assert_array_equal(source.image(2), np.full((3, 4, 3), (20, 2, 3)))
    assert source.describe(1).endswith("dog/a.JPG")


@both
def test_a_common_folder_on_top_is_looked_through(write, tmp_path):
    source = open_source(write(tmp_path, {"set/images/cat/a.png": encode(1), "set/images/dog/a.png": encode(2)}))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1]


@both
@pytest.mark.parametrize("top", ["", "photos/"])
def test_images_only_have_no_labels(write, top, tmp_path):
    source = open_source(write(tmp_path, {f"{top}b.png": encode(2), f"{top}a.png": encode(1)}))
    assert source.classes is None
    assert source.labels is None
    assert [int(source.image(index)[0, 0, 0]) for index in range(2)] == [1, 2]


@both
@pytest.mark.parametrize(
    "names",
    [("cat/a.png", "b.png"), ("cat/a.png", "dog/small/b.png"), ("train/cat/a.png", "test/cat/a.png")],
)
def test_unclear_layouts_are_refused(write, names, tmp_path):
    with pytest.raises(InputError, match="mixes images at several depths or nests folders"):
        open_source(write(tmp_path, {name: encode(1) for name in names}))


@both
@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hi"}, {"cat/.hidden.png": b""}])
def test_no_images_is_refused(write, files, tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        open_source(write(tmp_path, files))


@both
def test_hidden_files_and_folders_are_passed_over(write, tmp_path):
    files = {"a.png": encode(1), ".b.png": b"junk", ".git/c.png": b"junk"}
    if write is write_zip:
        files["__MACOSX/a.png"] = b"junk"
    assert len(open_source(write(tmp_path, files))) == 1


@both
@pytest.mark.parametrize(
    ("data", "format"),
    [
        (encode(1, "JPEG")[:-40], "truncated jpeg"),
        (encode(1, "PNG")[:45], "truncated png"),
        (b"", "empty"),
        (b"not an image at all", "text"),
        (encode(1, "PCX", "L"), "a format that is not taken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a format that starts a program"),
    ],
)
def test_a_bad_image_is_named(write, data, format, tmp_path):
    source = open_source(write(tmp_path, {"cat/ok.png": encode(1), "dog/bad.jpg": data}))
    source.image(0)
    with pytest.raises(InputError, match=r"cannot decode the image '.*dog/bad\.jpg': it is truncated, malformed"):
        source.image(1)


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_an_image_over_the_pixel_limit_is_refused_from_its_header():
    with pytest.raises(InputError, match=r"'big' is 7000x8000, over the limit of 50000000 pixels"):
        decode.decode_image(header_only_png(8000, 7000), "big")
    with pytest.raises(InputError, match=r"cannot decode the image 'bomb'.*DecompressionBombError"):
        decode.decode_image(header_only_png(60000, 60000), "bomb")


def test_sixteen_bits_a_channel_are_refused_rather_than_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 4), 3000, dtype=np.uint16)).save(buffer, "PNG")
    with pytest.raises(InputError, match="pixel format I"):
        decode.decode_image(buffer.getvalue(), "deep.png")


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_pixel_formats_become_one_or_three_channels(mode, channels):
    buffer = io.BytesIO()
    Image.new(mode, (4, 3)).save(buffer, "PNG")
    result = decode.decode_image(buffer.getvalue(), "x")
    assert result.shape == (3, 4, channels)
    assert result.dtype == np.uint8


def test_a_folder_fingerprint_covers_names_and_bytes_and_nothing_else(tmp_path):
    first = open_source(write_folder(tmp_path / "1", {"cat/a.png": encode(1), "dog/a.png": encode(2)}))
    same = open_source(write_folder(tmp_path / "2", {"dog/a.png": encode(2), "cat/a.png": encode(1), "x.txt": b""}))
    renamed = open_source(write_folder(tmp_path / "3", {"cat/a.png": encode(1), "dog/b.png": encode(2)}))
    changed = open_source(write_folder(tmp_path / "4", {"cat/a.png": encode(1), "dog/a.png": encode(3)}))
    assert first.fingerprint() == same.fingerprint()
    assert len({source.fingerprint() for source in (first, renamed, changed)}) == 3
    expected = hashlib.sha256()
    for name, data in (("cat/a.png", encode(1)), ("dog/a.png", encode(2))):
        expected.update(name.encode() + b"\0" + struct.pack("<Q", len(data)) + data)
    assert first.fingerprint() == expected.hexdigest()


def test_a_zip_fingerprint_is_that_of_the_file(tmp_path):
    path = write_zip(tmp_path, {"a.png": encode(1)})
    assert open_source(path).fingerprint() == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_linked_class_folders_are_followed_and_loops_end(tmp_path):
    write_folder(tmp_path / "far", {"x.png": encode(5)})
    write_folder(tmp_path / "set", {"cat/a.png": encode(1)})
    os.symlink(tmp_path / "far", tmp_path / "set" / "dog")
    assert open_source(str(tmp_path / "set")).classes == ("cat", "dog")
    os.symlink(tmp_path / "set", tmp_path / "set" / "cat" / "loop")
    with pytest.raises(InputError, match="several depths"):
        open_source(str(tmp_path / "set"))


def test_a_file_that_went_away_is_named(tmp_path):
    source = open_source(write_folder(tmp_path, {"a.png": encode(1)}))
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"cannot read '.*a\.png': No such file"):
        source.image(0)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot read the folder .*: Permission denied"):
        folder.FolderSource(tmp_path)


def test_a_file_over_the_size_limit_is_refused(tmp_path, monkeypatch):
    source = open_source(write_folder(tmp_path, {"a.png": encode(1)}))
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 20)
    with pytest.raises(InputError, match=r"'.*a\.png' is over the limit of 20 bytes"):
        source.image(0)


@pytest.mark.parametrize(
    "name",
    ["/etc/a.png", "../a.png", "cat/../../a.png", "cat\\..\\a.png", "C:/a.png", "C:\\a.png", "../notes.txt"],
)
def test_names_that_leave_the_zip_are_refused(name, tmp_path):
    path = write_zip(tmp_path, {"cat/a.png": encode(1), name: encode(2)})
    with pytest.raises(InputError, match="would leave the archive's folder"):
        open_source(path)


def test_a_zip_is_never_extracted(tmp_path, monkeypatch):
    path = write_zip(tmp_path, {"cat/a.png": encode(1), "dog/a.png": encode(1)})
    monkeypatch.chdir(tmp_path)
    source = open_source(path)
    source.image(0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.zip"]


def test_a_member_over_the_size_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(100_000))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 99_999)
    with pytest.raises(InputError, match=r"'a\.png' unpacks to 100000 bytes, over the limit"):
        open_source(str(path))


def test_a_member_that_lies_about_its_size_inflates_no_further(tmp_path):
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(5_000_000))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 100)))
    source = open_source(str(path))
    with pytest.raises(InputError, match=r"cannot read 'a\.png' in .*: the zip is malformed"):
        source.image(0)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_a_bound_is_refused(method, tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a.png", encode(1))
    with pytest.raises(InputError, match=r"compresses 'a\.png' by an unusual method"):
        open_source(str(path))


def test_an_encrypted_zip_is_refused(tmp_path):
    path = Path(write_zip(tmp_path, {"a.png": encode(1)}))
    data = bytearray(path.read_bytes())
    # The flags of the central directory's entry, 8 bytes after its signature.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is encrypted at 'a\.png'"):
        open_source(str(path))


@pytest.mark.parametrize("keep", [0, 10, 100, -5])
def test_a_truncated_zip_is_refused(keep, tmp_path):
    path = Path(write_zip(tmp_path, {"cat/a.png": encode(1), "dog/a.png": encode(2)}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is not a zip file, or is truncated"):
        open_source(str(path))


def test_a_damaged_member_is_named(tmp_path):
    path = Path(write_zip(tmp_path, {"a.png": encode(1)}))
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read 'a\.png' in .*Bad CRC"):
        open_source(str(path)).image(0)
