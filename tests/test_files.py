"""Safe writing, provenance, and preprocessing inside the graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from rir_deploy.artifacts import Provenance, atomic_file, atomic_folder
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.embed import embed_preprocessing
from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import graph_sha256, load_onnx, save_onnx, write_provenance
from tests.fold.graphs import Writer


def model(channels: int = 2) -> ir.Model:
    w = Writer(dtype=np.float32)
    return w.model(w.relu(w.conv(w.input(3, (4, 5)), channels)))


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


def test_the_hash_of_a_graph_does_not_depend_on_where_its_weights_lie(tmp_path: Path) -> None:
    source = model()
    ir.save(source, tmp_path / "inside.onnx")
    ir.save(source, tmp_path / "beside.onnx", external_data="beside.data", size_threshold_bytes=0)
    inside, beside = (ir.load(tmp_path / f"{name}.onnx") for name in ("inside", "beside"))
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in beside.graph.initializers.values())
    assert graph_sha256(beside) == graph_sha256(inside) == graph_sha256(source)
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in beside.graph.initializers.values())


def _with_constant(array: np.ndarray[Any, Any]) -> ir.Model:
    """Weights of a Constant node and of a subgraph: hashed as any other."""
    tensor = onnx.numpy_helper.from_array(array, "held")
    inner = [onnx.helper.make_node("Constant", [], ["deep"], value=tensor)]
    out = onnx.helper.make_tensor_value_info("deep", tensor.data_type, None)
    branch = onnx.helper.make_graph(inner, "branch", [], [out], [onnx.numpy_helper.from_array(array, "inner")])
    nodes = [
        onnx.helper.make_node("Constant", [], ["outer"], value=tensor),
        onnx.helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    condition = onnx.numpy_helper.from_array(np.array(True), "condition")
    result = onnx.helper.make_tensor_value_info("y", tensor.data_type, None)
    graph = onnx.helper.make_graph(nodes, "constants", [], [result], [condition])
    return ir.from_proto(onnx.helper.make_model(graph))


def test_the_hash_of_a_graph_sees_type_shape_and_numbers_of_every_tensor() -> None:
    arrays = (
        np.zeros((2, 3), np.float32),
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3), np.int32),
        np.array([[0, 0, 0], [0, 0, -0.0]], np.float32),
        np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object),
        np.array([["a", "b", "c"], ["d", "e", "g"]], dtype=object),
    )
    assert len({graph_sha256(_with_constant(array)) for array in arrays}) == len(arrays)
    for array in arrays:
        assert graph_sha256(_with_constant(array)) == graph_sha256(_with_constant(array.copy()))


def test_no_weight_is_serialised_to_hash_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf could not hold them all: what is serialised must not grow with the weights."""
    w = Writer(dtype=np.float32)
    large = w.model(w.relu(w.conv(w.conv(w.input(3), 200), 200)))
    large.graph.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(np.ones((99, 999), np.float32)))]))
    protos = []
    to_proto = ir.to_proto
    monkeypatch.setattr(ir, "to_proto", lambda model: protos.append(to_proto(model)) or protos[-1])
    graph_sha256(large)
    assert len(protos) == 1
    assert protos[0].ByteSize() < 2000


def test_large_weights_go_beside_the_file_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.onnx_file.EXTERNAL_DATA_BYTES", 10)
    save_onnx(model(8), tmp_path / "m.onnx", force=False)
    (data,) = tmp_path.glob("m.onnx.*.data")
    loaded = load_onnx(tmp_path / "m.onnx")
    data.unlink()
    assert graph_sha256(loaded) == graph_sha256(model(8))


@pytest.mark.parametrize("place", ["graph", "subgraph", "function"])
@pytest.mark.parametrize("domain", ["com.microsoft", "", "another"])
def test_an_engine_in_an_onnx_file_is_refused(place: str, domain: str, tmp_path: Path) -> None:
    """ONNX Runtime's providers run what such a node holds, or what lies beside the file."""
    node = onnx.helper.make_node("EPContext", ["x"], ["z"], name="ep", domain=domain, ep_cache_context="ep.engine")
    proto = ir.to_proto(model())
    if place == "graph":
        proto.graph.node.append(node)
    elif place == "subgraph":
        inner = onnx.helper.make_graph([node], "inner", [], [])
        proto.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
    else:
        opset = onnx.helper.make_opsetid("", 18)
        proto.functions.append(onnx.helper.make_function("own", "f", ["x"], ["z"], [node], [opset]))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"the node 'ep' \(EPContext\) brings a compiled engine: refused"):
        load_onnx(tmp_path / "m.onnx")


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
