"""JSON and TOML of strangers: every reader refuses what has two meanings, or none, in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rir_deploy.strict_data import parse_json, parse_toml
from tests.cli.test_bad_input import refused
from tests.conftest import Bundled, Made, Runner

# Values of a key, and files as a whole.
VALUES = {
    "5,000 digits": "9" * 5000,
    "400 digits": "-" + "9" * 400,
    "1e999": "1e999",
    "-1e999": "-1e999",
    "nested": "[" * 50_000 + "]" * 50_000,
    "nested as far as Python reads": "[" * 300 + "]" * 300,
    "half of a pair": '"\\ud800"',
}
REASON = "out of range|digits|nested too deeply|NUL|surrogates|[Uu]nicode"
WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "Latin-1": lambda data: data + "é".encode("latin-1"),
    "raw NUL": lambda data: data + b"\0",
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_values_of_json(value: str) -> None:
    with pytest.raises(ValueError, match=REASON):
        parse_json(f'{{"a": [{value}]}}')


@pytest.mark.parametrize("value", [*VALUES.values(), '"a\\u0000b"'], ids=[*VALUES.keys(), "NUL"])
def test_values_of_toml(value: str) -> None:
    with pytest.raises(ValueError, match=REASON):
        parse_toml(f"a = [{value}]".encode())


def test_equal_keys() -> None:
    for text in ('{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]', '{"\\u0061": 1, "a": 2}'):
        with pytest.raises(ValueError, match="the key 'a' twice"):
            parse_json(text)
    with pytest.raises(ValueError, match="overwrite"):
        parse_toml(b"a = 1\na = 2\n")


def test_what_is_right_is_read_as_python_reads_it() -> None:
    for value in (
        2**64 - 1,
        10**300,
        "a\0b",
        -(2**63),
        1.5e308,
        [],
        {},
        None,
        "é😀\\u0000 \t",
        {"a": [{"b": -0.0}]},
        [[[["deep"]]]],
        True,
    ):
        assert parse_json(json.dumps(value)) == value
        assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json("[NaN, Infinity, -3]")[1:] == [float("inf"), -3]
    assert parse_toml('a = 1\n[b]\nc = "é"\nd = inf\n'.encode()) == {"a": 1, "b": {"c": "é", "d": float("inf")}}


def spoil(path: Path, how: str) -> None:
    """A value in place of the file's first number, or the file as a whole."""
    data = path.read_bytes()
    if how in WHOLE:
        path.write_bytes(WHOLE[how](data))
        return
    if how == "equal keys":
        key = data[data.index(b'"') : data.index(b":") + 1]
        path.write_bytes(data.replace(b"{", b"{" + key + b" 1, ", 1))
        return
    text = data.decode()
    end = text.rindex("}") if path.suffix == ".json" else len(text)
    more = f', "more": {VALUES[how]}' if path.suffix == ".json" else f"more = {VALUES[how]}\n"
    path.write_text(text[:end] + more + text[end:])


JSON = [*VALUES, *WHOLE, "equal keys"]
TOML = [*VALUES, *WHOLE]


@pytest.mark.parametrize("how", TOML)
def test_recipes_and_plans(how: str, made: Made, rir: Runner, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    shutil.copy(Path(__file__).parents[1] / "calibration" / "digits.toml", recipe)
    spoil(recipe, how)
    plan = tmp_path / "deploy.toml"
    plan.write_text(f'checkpoint = "{made.checkpoint}"\nrecipe = "digits"\n')
    spoil(plan, how)
    for line in (
        ("train", recipe, "-o", tmp_path / "out"),
        ("export", made.checkpoint, "--recipe", recipe, "-o", tmp_path / "out"),
        ("run", plan, "-o", tmp_path / "out"),
    ):
        ran = rir(*line, "--json")
        assert (ran.code, ran.json["error"]["exit_code"]) == (5, 5), (line, ran.err)
        assert ran.err.count("\n") == 1
        assert len(ran.err) < 1200
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", JSON)
def test_records(how: str, made: Made, bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    engine, run = tmp_path / "engine", tmp_path / "run"
    shutil.copytree(made.engine, engine)
    shutil.copytree(bundled.run, run)
    table = next((run / "graphs").glob("*.json"))
    for path in (engine / "manifest.json", run / "run.json", table):
        spoil(path, how)
    base = tmp_path / "base.json"
    base.write_text('{"results": []}')
    spoil(base, how)
    for line in (
        ("inspect", engine),
        ("inspect", table),
        ("report", run, "-o", tmp_path / "out"),
        ("bundle", run, "-o", tmp_path / "out.zip"),
        ("verify", run),
        ("bench", made.engine, "--baseline", base),
        ("roofline", made.engine, "--from", base),
        ("quantize", made.onnx, "--ranges", table, "-o", tmp_path / "out"),
    ):
        ran = rir(*line, "--json")
        assert (ran.code, ran.json["error"]["exit_code"]) == (5, 5), (line, ran.err)
        assert ran.err.count("\n") == 1
        assert len(ran.err) < 1200
    refused(rir("compare", run, bundled.run), 5)
