"""The cache of ceilings: kept where it belongs, and believed only where it fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.artifacts import sha256_json
from rir_deploy.errors import InputError, UsageError
from rir_deploy.roofline.cache import cache_file, cache_folder, read_cache, write_cache
from rir_deploy.roofline.ceilings import Ceiling, Ceilings, Copy, Probe
from rir_deploy.roofline.shapes import Shape

MACHINE: dict[str, object] = {
    "cpu": "Imaginary 9000",
    "threads": 2,
    "runtimes": {"openvino": "1.2", "onnxruntime": None},
}


def ceilings() -> Ceilings:
    probes = [
        Probe("openvino", "int8", Shape(8, 8, (4, 4), repeats=2)),
        Probe("openvino", "bf16", Shape(8, 16, (4, 6), (1, 1), (2, 2), batch=3)),
    ]
    return Ceilings(MACHINE, tuple(Ceiling(one, 12.5 + i) for i, one in enumerate(probes)), (Copy(1024, 3.5),))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = cache_file(MACHINE)
    assert found is not None
    return found


def test_what_was_written_is_read(path: Path, tmp_path: Path) -> None:
    assert read_cache(path, MACHINE) is None
    write_cache(path, ceilings())
    assert read_cache(path, MACHINE) == ceilings()
    assert [file.name for file in (tmp_path / "rir-deploy").iterdir()] == [path.name]  # nothing half-written
    write_cache(path, ceilings().merged([], [Copy(2048, 3.0)]))
    assert len(read_cache(path, MACHINE).copies) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["cpu", "threads", "runtimes"])
def test_another_machine_has_another_file_and_is_not_believed(path: Path, key: str) -> None:
    other = {**MACHINE, key: "another"}
    assert cache_file(other) != path
    write_cache(path, ceilings())
    with pytest.raises(InputError, match="another machine"):
        read_cache(path, other)


def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(path: Path) -> None:
    write_cache(path, ceilings())
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 40):  # the last two bytes are the closing brace and the line's end
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is damaged"):
            read_cache(path, MACHINE)


def test_a_figure_that_was_changed_is_refused(path: Path) -> None:
    write_cache(path, ceilings())
    path.write_text(path.read_text().replace("12.5", "99.5"))
    with pytest.raises(InputError, match="not as it was written"):
        read_cache(path, MACHINE)


def _set(table: Any, keys: tuple[Any, ...], value: object) -> None:
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("measured", 0, "gmac_per_s"), 0),
        (("measured", 0, "gmac_per_s"), float("inf")),
        (("measured", 0, "gmac_per_s"), "12"),
        (("measured", 0, "precision"), "int3"),
        (("measured", 0, "shape", "size"), [4]),
        (("measured", 0, "shape", "size"), 4),
        (("measured", 0, "shape", "channels_in"), [8, 8]),
        (("measured", 0, "shape", "channels_in"), -8),
        (("measured", 0, "shape"), {"channels_in": 8}),
        (("measured", 0), []),
        (("copies", 0, "gb_per_s"), -1),
        (("copies", 0, "working_set_bytes"), 1.5),
        (("copies",), {}),
        (("machine",), []),
        (("more",), 1),
    ],
)
def test_a_record_that_is_none_is_refused_even_where_its_hash_fits(
    path: Path, keys: tuple[Any, ...], value: object
) -> None:
    body = json.loads(json.dumps(ceilings().to_dict()))
    _set(body, keys, value)
    path.parent.mkdir()
    path.write_text(json.dumps({"format": 1, "ceilings": body, "sha256": sha256_json(body)}))
    with pytest.raises(InputError, match="is damaged"):
        read_cache(path, MACHINE)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"format": 1, "ceilings": 3}', "\xff"])
def test_what_is_no_cache_at_all(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="remove it to measure again"):
        read_cache(path, MACHINE)


def test_another_format_is_refused(path: Path) -> None:
    write_cache(path, ceilings())
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="not as it was written"):
        read_cache(path, MACHINE)


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "rir-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "rir-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "rir-deploy"


def test_a_folder_that_cannot_be_written_is_a_usage_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "rir-deploy").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="cannot write"):
        write_cache(path, ceilings())
