"""Safe writing, provenance, and preprocessing inside the graph."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from rir_deploy.artifacts import Provenance, atomic_file, atomic_folder
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.embed import embed_preprocessing
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import graph_sha256, load_onnx, save_onnx, write_provenance
from tests.fold.graphs import Writer


def model() -> ir.Model:
    w = Writer(dtype=np.float32)
    return w.model(w.relu(w.conv(w.input(3, (4, 5)), 2)))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with pytest.raises(ZeroDivisionError), atomic_file(target, force=False) as temporary:
        temporary.write_bytes(b"half" * (1 // 0 or 1))
    assert os.listdir(tmp_path) == []
    with atomic_file(target, force=False) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    with pytest.raises(UsageError, match="--force"), atomic_file(target, force=False):
        pass


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "engine"
    with atomic_folder(target, force=False) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(FileNotFoundError), atomic_folder(target, force=True) as temporary:
        (temporary / "missing" / "b").write_text("2")
    assert os.listdir(target) == ["a"]
    with atomic_folder(target, force=True) as temporary:
        (temporary / "b").write_text("2")
    assert os.listdir(target) == ["b"]
    assert os.listdir(tmp_path) == ["engine"]


def test_provenance_reads_back_and_refuses_anything_else() -> None:
    record = Provenance(("export", "fold"), "fp32", {"checkpoint": "ab"}, {"name": "digits"}, "rir-deploy 1")
    assert Provenance.from_json(record.to_json()) == record
    for text in (
        "",
        "[]",
        "{}",
        '{"stages": 3}',
        record.to_json().replace('"parents": {', '"parents": [{').replace("}", "}]", 1),
    ):
        with pytest.raises(InputError, match="malformed"):
            Provenance.from_json(text)


def test_what_a_graph_computes_has_a_hash_of_its_own(tmp_path: Path) -> None:
    first, second = model(), model()
    write_provenance(second, Provenance(("export",), tool="another"))
    assert graph_sha256(first) == graph_sha256(second)
    path = tmp_path / "m.onnx"
    save_onnx(second, path, force=False)
    assert graph_sha256(load_onnx(path)) == graph_sha256(first)
    weight = next(iter(first.graph.initializers.values()))
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() + np.float32(1e-6), name=weight.name)
    assert graph_sha256(first) != graph_sha256(second)


def test_large_weights_go_beside_the_file_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.onnx_file.EXTERNAL_DATA_BYTES", 10)
    save_onnx(model(), tmp_path / "m.onnx", force=False)
    assert "m.onnx.data" in os.listdir(tmp_path)
    loaded = load_onnx(tmp_path / "m.onnx")
    os.remove(tmp_path / "m.onnx.data")
    assert graph_sha256(loaded) == graph_sha256(model())


def test_embedded_preprocessing_is_the_recipes_arithmetic() -> None:
    preprocessing = Preprocessing((4, 5), "RGB", (0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    embedded = embed_preprocessing(model(), preprocessing)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    normalized = ((images / 255.0 - [0.1, 0.5, 0.9]) / [0.2, 0.3, 0.4]).transpose(0, 3, 1, 2).astype(np.float32)
    (expected,) = ReferenceEvaluator(ir.to_proto(model())).run(None, {"x": normalized})
    (found,) = ReferenceEvaluator(ir.to_proto(embedded)).run(None, {"x": images})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(InputError, match="embed it once"):
        embed_preprocessing(embedded, preprocessing)
    with pytest.raises(InputError, match="float32"):
        embed_preprocessing(model(), Preprocessing((5, 4), "RGB", (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)))
