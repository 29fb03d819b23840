"""What build-engine writes and refuses, without a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import save_onnx
from rir_deploy.pipeline import build_bundled
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest
from rir_deploy.pipeline.evaluation import SearchRequest
from tests.engines.graphs import classifier, quantised

pytest.importorskip("onnxruntime")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_onnx(classifier(), tmp_path / "model.onnx", force=False)
    return tmp_path / "model.onnx"


def test_weights_beside_the_graph_are_in_the_manifest(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rir_deploy.onnx_file.EXTERNAL_DATA_BYTES", 10)
    engine = tmp_path / "engine"
    build_engine(BuildRequest(source, "onnxruntime"), engine, force=False)
    manifest = check_engine(engine)
    (record,) = manifest.extra
    assert re.fullmatch(r"graph\.onnx\.[0-9a-f]{16}\.data", record.name)
    with load_engine(engine, manifest) as session:
        (logits,) = session.run(np.zeros((2, 3, 8, 8), np.float32)).values()
    assert logits.shape == (2, 5)
    data = bytearray((engine / record.name).read_bytes())
    data[9] ^= 1
    (engine / record.name).write_bytes(data)
    with pytest.raises(InputError, match=r"graph\.onnx\..*\.data' is not the file"):
        check_engine(engine)


OPTIONS: dict[str, dict[str, Any]] = {
    "calibration": {"calibration": CalibrationRequest(samples=7)},
    "keep": {"keep": ("n1",)},
    "search": {"search": SearchRequest(0.5, "digits")},
    "reduced range": {"reduced_range": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("suffix", [".onnx", ".zip"])
def test_what_would_change_a_graph_that_is_int8_already_is_refused(
    options: dict[str, Any], suffix: str, tmp_path: Path
) -> None:
    source = tmp_path / f"int8{suffix}"
    if suffix == ".onnx":
        save_onnx(quantised(), source, force=False)
    else:
        source.touch()  # it is refused before the bundle is opened
    request = BuildRequest(source, "onnxruntime", "int8", **options)
    with pytest.raises(UsageError, match="already: leave out"):
        build_bundled.build_engine(request, tmp_path / "engine", force=False)
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kept", ["folder", "file", "link"])
def test_what_is_no_engine_is_not_replaced(source: Path, kept: str, force: bool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    output = {"folder": home, "file": home / "thesis.tex", "link": tmp_path / "link"}[kept]
    if kept == "link":
        output.symlink_to(home)
    with pytest.raises(UsageError, match=r"is no engine.*choose another output"):
        build_bundled.build_engine(BuildRequest(source, "onnxruntime"), output, force=force)
    assert (home / "thesis.tex").read_text() == "precious"


def test_an_empty_folder_and_an_engine_are_replaced(source: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    for command in ("first", "second"):
        build_bundled.build_engine(BuildRequest(source, "onnxruntime", command=command), engine, force=True)
        assert check_engine(engine).command == command


@pytest.mark.parametrize("name", ["in\x1b[31m", "a\nb", "a\u202eb", "\ud7ff\x7f"])
@pytest.mark.parametrize("side", ["input", "output"])
def test_names_that_no_manifest_can_hold_are_refused_before_anything_is_built(
    name: str, side: str, source: Path, tmp_path: Path
) -> None:
    model = onnx.load(source)
    (value,) = model.graph.input if side == "input" else model.graph.output
    for node in model.graph.node:
        node.input[:] = [name if one == value.name else one for one in node.input]
        node.output[:] = [name if one == value.name else one for one in node.output]
    value.name = name
    onnx.save(model, source)
    with pytest.raises(InputError, match=r"is not plain text.*rename it"):
        build_engine(BuildRequest(source, "onnxruntime"), tmp_path / "engine", force=False)
    assert not (tmp_path / "engine").exists()
