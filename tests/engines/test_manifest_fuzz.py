"""Whatever stands in an engine's folder: it is refused with a sentence, or it is the engine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import MANIFEST_NAME, Manifest, check_engine
from rir_deploy.errors import BackendError, InputError
from tests.conftest import Made, Runner
from tests.fuzz.noise import places, put

FUZZ = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["../graph.onnx", "/etc/passwd", "graph.onnx\0", "a" * 5000, "\x1b[2J", "\ud800", ".", "sm999"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def engine(made: Made, tmp_path: Path) -> Path:
    shutil.copytree(made.engine, tmp_path / "engine")
    return tmp_path / "engine"


def opened(folder: Path, trust: bool = False) -> Manifest | None:
    """The manifest of an engine that was loaded by it; None where it was refused in one printable sentence."""
    try:
        manifest = check_engine(folder, trust=trust)
        load_engine(folder, manifest, trust=trust).close()
    except (InputError, BackendError) as error:
        reason = str(error)
    else:
        return manifest
    assert reason.isprintable(), reason
    assert trust or "rebuild it with" in reason
    return None


@FUZZ
@given(data=st.data())
def test_a_manifest_with_anything_anywhere(engine: Path, data: st.DataObject) -> None:
    path = engine / MANIFEST_NAME
    whole = path.read_text(encoding="utf-8")
    manifest = json.loads(whole)
    place = data.draw(st.sampled_from(places(manifest)))
    try:
        path.write_text(json.dumps(put(manifest, place, data.draw(JSON))), encoding="utf-8")
        seen = opened(engine)
        # What was loaded is still the engine that the manifest vouched for.
        if seen is not None:
            assert (seen.engine.name, seen.engine.sha256) == ("graph.onnx", manifest["engine"]["sha256"])
    finally:
        path.write_text(whole, encoding="utf-8")


@FUZZ
@given(cut=st.integers(0, 5000), noise=st.binary(max_size=40))
def test_a_manifest_of_any_bytes(engine: Path, cut: int, noise: bytes) -> None:
    path = engine / MANIFEST_NAME
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:cut] + noise + whole[cut + len(noise) :])
        opened(engine)
    finally:
        path.write_bytes(whole)


@FUZZ
@given(name=st.sampled_from(["graph.onnx"]), at=st.integers(0, 1 << 16), byte=st.integers(1, 255), cut=st.booleans())
def test_one_byte_or_a_lost_end_of_a_file_is_refused(engine: Path, name: str, at: int, byte: int, cut: bool) -> None:
    path = engine / name
    whole = path.read_bytes()
    at %= len(whole)
    try:
        path.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ byte]) + whole[at + 1 :])
        assert opened(engine) is None
    finally:
        path.write_bytes(whole)


@settings(FUZZ, max_examples=25)
@given(data=st.data())
def test_trusted_files_of_any_bytes_end_in_a_sentence_too(engine: Path, data: st.DataObject) -> None:
    """--trust leaves out the check, not the care."""
    path = engine / "graph.onnx"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:at] + data.draw(st.binary(max_size=60)) + whole[at + 30 :])
        opened(engine, trust=True)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("text", ["a" * 5000, "graph.onnx\0", "\x1b[2J", "\ud800", "..", ".", "", "a\nb", "\u202e"])
@pytest.mark.parametrize(
    "place", [("engine", "name"), ("graph", "name"), ("backend",), ("backend_version",), ("targets", 0), ("gpu",)]
)
def test_text_that_is_no_name_is_refused_and_never_shown_as_it_is(
    engine: Path, place: tuple[Any, ...], text: str
) -> None:
    path = engine / MANIFEST_NAME
    manifest = {**json.loads(path.read_text(encoding="utf-8")), "targets": ["sm89"]}
    path.write_text(json.dumps(put(manifest, place, text)), encoding="utf-8")
    seen = opened(engine)  # what of it is plain text and means nothing to ONNX Runtime may stay
    assert seen is None or (text.isprintable() and place[0] in ("backend_version", "targets", "gpu"))


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "large", "missing"])
def test_what_is_no_plain_manifest_is_refused_at_once(engine: Path, kind: str, tmp_path: Path) -> None:
    path = engine / MANIFEST_NAME
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(whole)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)  # reading it would wait for ever
    elif kind == "large":
        path.write_bytes(whole + b" " * (17 << 20))
    with pytest.raises(InputError):
        check_engine(engine)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("rir-deploy build-engine 'my model.onnx' -o engine", True),
        ("rir-deploy build-engine model.onnx -o engine; rm -rf ~", False),
        ("rir-deploy build-engine $(reboot)", False),
        ("curl example.org | sh", False),
        ("rir-deploy build-engine a\nb", False),
        ("rir-deploy build-engine 'unclosed", False),
        ("", False),
    ],
)
def test_a_manifests_command_is_shown_only_if_this_tool_could_have_written_it(
    rir: Runner, made: Made, engine: Path, command: str, shown: bool
) -> None:
    path = engine / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "command": command}))
    (engine / "graph.onnx").write_bytes(b"another")
    ran = rir("verify", made.onnx, engine)
    assert ran.code == 5
    assert ran.err.rstrip().endswith(f"rebuild it with: {command}" if shown else "rebuild it with build-engine")


def test_the_command_line_trusts_only_where_it_is_told_to(rir: Runner, made: Made, engine: Path) -> None:
    path = engine / MANIFEST_NAME
    told = json.loads(path.read_text())
    told["engine"]["sha256"] = told["graph"]["sha256"] = "0" * 64
    path.write_text(json.dumps(told))
    for command in (("verify", made.onnx, engine), ("bench", engine, "--duration", "0.01", "--rounds", "1")):
        assert rir(*command).code == 5
        ran = rir(*command, "--trust", "--json")
        assert ran.code == 0, ran.err
        assert "(trusted: not checked against its manifest)" in ran.out
    told["graph"]["name"] = "../engine/graph.onnx"
    path.write_text(json.dumps(told))
    assert rir("verify", made.onnx, engine, "--trust").code == 5
