"""Formats, kinds of pixels, several frames and orientation, each against pillow or numpy by themselves."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from rir_deploy.data.decode import EXTENSIONS, decode_image
from rir_deploy.data.sources import open_source
from rir_deploy.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
LOSSLESS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".dib": "DIB", ".ppm": "PPM", ".pnm": "PPM"}
LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
GREY = {".pgm": "PPM", ".pbm": "PPM"}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_suffix_is_tried_here() -> None:
    assert {*LOSSLESS, *LOSSY, *GREY} == set(EXTENSIONS)


@pytest.mark.parametrize(("suffix", "kind"), [*LOSSLESS.items(), *LOSSY.items()])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_format_from_folders_and_zips(suffix: str, kind: str, upper: bool, zipped: bool, tmp_path: Path) -> None:
    data, name = encoded(Image.fromarray(PIXELS), kind), f"cat/a{suffix.upper() if upper else suffix}"
    if zipped:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            file.writestr(name, data)
    else:
        (tmp_path / "x" / "cat").mkdir(parents=True)
        (tmp_path / "x" / name).write_bytes(data)
    source = open_source(str(tmp_path / ("x.zip" if zipped else "x")))
    assert source.note is None
    seen = source.image(0)
    np.testing.assert_array_equal(seen, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    if suffix in LOSSLESS:
        np.testing.assert_array_equal(seen, PIXELS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiffs(compression: str | None) -> None:
    data = encoded(Image.fromarray(PIXELS), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_image(data, "x"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind: str) -> None:
    image = Image.fromarray(PIXELS).convert("CMYK")
    data = encoded(image, kind)
    np.testing.assert_array_equal(decode_image(data, "x"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_palettes_are_looked_up_and_transparency_is_dropped() -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    for kind, options in (("PNG", {}), ("GIF", {}), ("TIFF", {}), ("PNG", {"transparency": 3})):
        seen = decode_image(encoded(palette, kind, **options), "x")
        np.testing.assert_array_equal(seen, np.asarray(palette.convert("RGB")))
    alpha = np.dstack([PIXELS, np.full((5, 8), 7, np.uint8)])
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(alpha), kind), "x"), PIXELS)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_frames_are_refused_by_name(kind: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"the image 'film' holds several frames or pages; save the one"):
        decode_image(data, "film")


def test_a_photo_with_a_second_view_is_its_first() -> None:
    """What phones write under .jpg: a JPEG with another one behind it."""
    image = Image.fromarray(PIXELS)
    data = encoded(image, "MPO", save_all=True, append_images=[Image.fromarray(255 - PIXELS)], quality=95)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.abs(decode_image(data, "x").astype(int) - PIXELS).mean() < 60
    np.testing.assert_array_equal(decode_image(data, "x"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def deep_png(colours: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    rows = b"".join(b"\0" + bytes(range(8 * channels * 2)) for _ in range(5))
    header = struct.pack(">IIBBBBB", 8, 5, 16, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    """5 x 8 pixels of three 16-bit channels, which pillow itself does not write."""
    entries = [
        (256, 3, 1, 8),
        (257, 3, 1, 5),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),
        (277, 3, 1, 3),
        (278, 3, 1, 5),
        (279, 4, 1, 5 * 8 * 6),
    ]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, 9) + table + b"\0" * 4 + struct.pack("<3H", 16, 16, 16) + bytes(5 * 8 * 6)
    )


DEEP = {
    **{f"png of colour type {kind}": deep_png(kind) for kind in (0, 2, 4, 6)},
    "tiff": deep_tiff(),
    "ppm": b"P6 8 5 65535\n" + bytes(5 * 8 * 6),
    "pgm": b"P5 8 5 65535\n" + bytes(5 * 8 * 2),
    "float tiff": encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP)
def test_more_than_eight_bits_are_refused_rather_than_cut(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (8, 5)
    with pytest.raises(InputError, match=r"'deep' has the pixel format .*which 8 bits a channel cannot hold"):
        decode_image(data, "deep")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_that_of_a_viewer(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(PIXELS), kind, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert shown is not None
    seen = decode_image(data, "x")
    assert seen.shape[:2] == ((8, 5) if 5 <= orientation <= 8 else (5, 8))
    np.testing.assert_array_equal(seen, np.asarray(shown.convert("RGB")))


def test_grey_is_turned_too() -> None:
    exif = Image.Exif()
    exif[274] = 6
    seen = decode_image(encoded(Image.fromarray(PIXELS[..., 0]), "PNG", exif=exif), "x")
    np.testing.assert_array_equal(seen[..., 0], np.rot90(PIXELS[..., 0], -1))


@pytest.mark.parametrize("junk", [b"", b"junk", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
def test_notes_that_cannot_be_read_do_not_cost_the_image(junk: bytes) -> None:
    data = encoded(Image.fromarray(PIXELS), "JPEG", exif=junk) if junk else encoded(Image.fromarray(PIXELS), "JPEG")
    np.testing.assert_array_equal(decode_image(data, "x"), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_not_read_is_counted_by_kind(zipped: bool, tmp_path: Path) -> None:
    image = encoded(Image.fromarray(PIXELS), "PNG")
    files = {
        "cat/a.png": image,
        "dog/b.png": image,
        "cat/c.heic": b"",
        "cat/d.HEIC": b"",
        "dog/e.svg": b"",
        "README": b"",
    }
    files |= {".hidden.heic": b"", "notes.txt": b""}
    if zipped:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            for name, data in files.items():
                file.writestr(name, data)
    else:
        for name, data in files.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(data)
    path = str(tmp_path / ("x.zip" if zipped else "x"))
    source = open_source(path)
    assert len(source) == 2
    assert source.note is not None
    assert source.note.startswith(f"5 files of '{path}' are not read: 2 .heic, 1 ")
    assert all(f"1 {kind}" in source.note for kind in (".svg", ".txt", "no suffix"))
