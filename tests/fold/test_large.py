"""Models over 2 GB keep their weights beside the graph. The limit is lowered here; `benchmarks` has a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy import onnx_file
from rir_deploy.errors import InputError
from rir_deploy.fold import FoldOptions, fold
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.fold import fold_file
from tests.fold.family import Family, build
from tests.fold.graphs import Writer, ops, relative_error

RIR = Family(((3, 2, 1), (4, 4, 2)))


@pytest.fixture(autouse=True)
def _low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)


def test_external_weights_in_and_out(tmp_path: Path) -> None:
    model = build(RIR)
    source, output = tmp_path / "in.onnx", tmp_path / "out" / "folded.onnx"
    save_onnx(model, source, force=False)
    (data,) = tmp_path.glob("in.onnx.*.data")
    assert data.stat().st_size > 1000
    result = fold_file(source, output, FoldOptions(require=True), force=False)
    assert result.after.convs == 6
    (folded,) = output.parent.glob("folded.onnx.*.data")
    assert sorted(output.parent.iterdir()) == sorted([output, folded])
    assert output.stat().st_size < source.stat().st_size
    assert relative_error(model, load_onnx(output)) < 1e-9
    onnx.checker.check_model(str(output), full_check=True)


def test_folding_a_model_onto_itself(tmp_path: Path) -> None:
    model = build(RIR)
    path = tmp_path / "model.onnx"
    save_onnx(model, path, force=False)
    fold_file(path, path, FoldOptions(), force=True)
    assert ops(load_onnx(path))["Conv"] == 6
    assert relative_error(model, load_onnx(path)) < 1e-9


def test_a_failure_while_writing_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "folded.onnx"
    save_onnx(build(RIR), source, force=False)
    fold_file(source, output, FoldOptions(), force=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save = ir.save

    def interrupted(*args: object, **options: object) -> None:
        save(*args, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(ir, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fold_file(source, output, FoldOptions(), force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname"])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    source = tmp_path / "inside" / "in.onnx"
    save_onnx(build(RIR), source, force=False)
    proto = onnx.load(source, load_external_data=False)
    moved = next(t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    next(entry for entry in moved.external_data if entry.key == "location").value = location
    source.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        fold_file(source, tmp_path / "out.onnx", FoldOptions(), force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_no_weight_is_serialised_for_shape_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf could not hold them: what goes to onnx's inference must not grow with the weights."""
    w = Writer()
    x = w.input(3, ("h", "w"))
    r, t = w.relu(w.bn(w.conv(x, 64))), w.relu(w.bn(w.conv(x, 64)))
    model = w.model(w.relu(w.add(w.conv(r, 64), w.conv(t, 64), r)))
    for name in ("w10", "w11"):  # as older exporters write weights: in nodes
        value = model.graph.initializers.pop(name)
        assert value.const_value is not None
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"{name}/Constant")
        node.outputs[0].name = name
        value.replace_all_uses_with(node.outputs[0])
        model.graph.insert_before(model.graph[0], node)
    sizes = []
    infer = onnx.shape_inference.infer_shapes

    def measured(proto: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
        sizes.append(proto.ByteSize())
        return infer(proto, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", measured)
    result = fold(model)
    assert result.after.convs == 2
    assert result.before.weight_bytes > 500_000
    assert sizes
    assert max(sizes) < 20_000
    assert np.isfinite(result.before.macs)
