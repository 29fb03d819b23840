"""What build-engine writes and refuses, without a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import InputError
from rir_deploy.onnx_file import save_onnx
from rir_deploy.pipeline.build import BuildRequest, build_engine
from tests.engines.graphs import classifier

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
    assert [record.name for record in manifest.extra] == ["graph.onnx.data"]
    with load_engine(engine, manifest) as session:
        (logits,) = session.run(np.zeros((2, 3, 8, 8), np.float32)).values()
    assert logits.shape == (2, 5)
    data = bytearray((engine / "graph.onnx.data").read_bytes())
    data[9] ^= 1
    (engine / "graph.onnx.data").write_bytes(data)
    with pytest.raises(InputError, match=r"graph\.onnx\.data' is not the file"):
        check_engine(engine)
