"""fold on the command line: what it says, to people and to programs, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.onnx_file import load_onnx
from tests.conftest import Runner
from tests.fold.graphs import Writer


def _model(dual: bool, refuse: bool = False) -> ir.Model:
    """A dual-stream block, or one convolution; with a division by zero behind it where asked."""
    w = Writer(dtype=np.float32)
    x = w.input(3)
    if dual:
        r, t = w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))
        x = w.relu(w.bn(w.add(w.conv(r, 4), w.conv(t, 4), r)))
    y = w.conv(x, 4, bias=True)
    return w.model(w.op("Div", [y, w.constant(np.zeros(1))], 4) if refuse else w.relu(y))


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "in.onnx"
    ir.save(_model(*request.param), path)
    return path


@pytest.mark.parametrize("file", [(True, True)], indirect=True)
def test_json(file: Path, rir: Runner, tmp_path: Path) -> None:
    ran = rir("fold", file, "-o", tmp_path / "out.onnx", "--json")
    assert ran.code == 0, ran.err
    before, after = onnx.load(file).graph, onnx.load(tmp_path / "out.onnx").graph
    for key, graph in (("before", before), ("after", after)):
        kinds = [node.op_type for node in graph.node]
        weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert ran.json["nodes"][key] == len(kinds)
        assert ran.json["convs"][key] == kinds.count("Conv")
        assert ran.json["ops"][key] == {kind: kinds.count(kind) for kind in kinds}
        assert ran.json["params"][key] == sum(int(np.prod(t.dims)) for t in weights)
        assert ran.json["weight_bytes"][key] == 4 * ran.json["params"][key]
        convs = (next(t.dims for t in weights if t.name == n.input[1]) for n in graph.node if n.op_type == "Conv")
        assert ran.json["macs"][key] == sum(int(np.prod(dims)) for dims in convs) * 64
    assert (ran.json["modified"], ran.json["blocks"], ran.json["dead_channels"]) == (True, 2, 0)
    assert ran.json["refused"] == [{"node": "n13", "reason": "it divides by zero"}]


@pytest.mark.parametrize("file", [(True, True)], indirect=True)
def test_table(file: Path, rir: Runner, tmp_path: Path) -> None:
    ran = rir("fold", file, "-o", tmp_path / "out.onnx")
    assert ran.code == 0, ran.err
    rows = [line.strip("│┃ ").replace("┃", "│").split("│") for line in ran.out.splitlines() if "│" in line]
    table = {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}
    assert table["folded blocks"] == ["", "2"]
    assert table["Conv"] == ["5", "3"]
    assert table["BatchNormalization"] == ["3", "0"]
    assert "not folded: n13: it divides by zero" in ran.out
    assert f"wrote {tmp_path / 'out.onnx'}" in ran.out


@pytest.mark.parametrize("file", [(False,)], indirect=True)
def test_require_exits_with_3_and_writes_nothing(file: Path, rir: Runner, tmp_path: Path) -> None:
    ran = rir("fold", file, "-o", tmp_path / "out.onnx", "--require")
    assert ran.code == 3
    assert "nothing in the graph folds" in ran.err
    assert os.listdir(tmp_path) == ["in.onnx"]


@pytest.mark.parametrize("file", [(False,)], indirect=True)
def test_without_require_the_model_is_written_as_it_came(file: Path, rir: Runner, tmp_path: Path) -> None:
    ran = rir("fold", file, "-o", tmp_path / "out.onnx", "--json")
    assert (ran.code, ran.json["modified"], ran.json["blocks"]) == (0, False, 0)
    written, given = (ir.to_proto(load_onnx(path)).graph for path in (tmp_path / "out.onnx", file))
    assert written.SerializeToString(deterministic=True) == given.SerializeToString(deterministic=True)
