"""Files that spell the same model otherwise are read as one model, by every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import InputError
from rir_deploy.fold import fold
from rir_deploy.onnx_file import load_onnx, save_onnx
from tests.conftest import Runner

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f4")


def weight(seed: int, rows: int, columns: int) -> NDArray[np.float32]:
    array = np.random.default_rng(seed).standard_normal((rows, columns, 3, 3)).astype("f4")
    array[np.abs(array) < 1] = 0
    return array


def dual(domain: str = "", batch: int | str = "N") -> onnx.ModelProto:
    """Two convolutions of one input, normalised and added up: a block that folds."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4, domain=domain),
        helper.make_node("Conv", ["x", "v"], ["b"], pads=[1] * 4, domain=domain),
        helper.make_node("Add", ["a", "b"], ["s"], domain=domain),
        helper.make_node("Relu", ["s"], ["y"], domain=domain),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, n, 8, 8]) for name, n in (("x", 3), ("y", 4))
    )
    weights = [numpy_helper.from_array(weight(seed, 4, 3), name) for seed, name in enumerate("wv")]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 17)], ir_version=8)


def sparse(proto: onnx.ModelProto, *, coordinates: bool, external: Path | None = None) -> onnx.ModelProto:
    """The same with the weight ``w`` stored as a sparse tensor."""
    dense = weight(0, 4, 3)
    places = np.flatnonzero(dense)
    indices = np.stack(np.unravel_index(places, dense.shape), axis=1) if coordinates else places
    values = numpy_helper.from_array(dense.reshape(-1)[places], "w")
    at = numpy_helper.from_array(indices.astype("i8"), "w_places")
    if external is not None:
        external.write_bytes(values.raw_data)
        onnx.external_data_helper.set_external_data(values, external.name)
        values.ClearField("raw_data")
    kept = [tensor for tensor in proto.graph.initializer if tensor.name != "w"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, list(dense.shape)))
    return proto


def answer(model: onnx.ModelProto | ir.Model) -> NDArray[np.float32]:
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


EXPECTED = answer(dual())


def spellings(folder: Path) -> dict[str, onnx.ModelProto]:
    both = dual("ai.onnx")
    both.opset_import.append(helper.make_opsetid("", 17))
    return {
        "ai.onnx": dual("ai.onnx"),
        "both domains": both,
        "negative batch": dual(batch=-1),
        "sparse": sparse(dual(), coordinates=False),
        "sparse, by coordinates": sparse(dual(), coordinates=True),
        "sparse, external": sparse(dual(), coordinates=False, external=folder / "w.bin"),
    }


@pytest.mark.parametrize("kind", range(6))
def test_another_spelling_is_the_same_model(kind: int, tmp_path: Path) -> None:
    name, proto = list(spellings(tmp_path).items())[kind]
    path = tmp_path / "in.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load_onnx(path)
    np.testing.assert_allclose(answer(model), EXPECTED, atol=1e-5, err_msg=name)
    assert list(model.graph.opset_imports) == [""]
    result = fold(model)
    assert (result.modified, result.after.convs) == (True, 1), name
    np.testing.assert_allclose(answer(result.model), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("kind", range(6))
def test_every_command_takes_it(kind: int, tmp_path: Path, rir: Runner) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(list(spellings(tmp_path).values())[kind].SerializeToString())
    assert rir("inspect", path).code == 0
    for command in (("fold", path, "-o", tmp_path / "f.onnx"), ("build-engine", path, "-o", tmp_path / "e", "--fp16")):
        ran = rir(*command, *(["--backend", "onnxruntime"] if command[0] == "build-engine" else []))
        assert ran.code == 0, ran.err


def test_what_needs_no_other_spelling_is_read_as_it_was(tmp_path: Path) -> None:
    proto = dual()
    onnx.save(proto, tmp_path / "in.onnx")
    save_onnx(load_onnx(tmp_path / "in.onnx"), tmp_path / "out.onnx", force=False)
    save_onnx(ir.load(tmp_path / "in.onnx"), tmp_path / "plain.onnx", force=False)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def test_a_sparse_constant_node(tmp_path: Path) -> None:
    proto = sparse(dual(), coordinates=False)
    stored = proto.graph.sparse_initializer[0]
    constant = helper.make_node("Constant", [], ["w"], sparse_value=stored)
    proto.graph.node.insert(0, constant)
    del proto.graph.sparse_initializer[:]
    onnx.save(proto, tmp_path / "in.onnx")
    np.testing.assert_allclose(answer(load_onnx(tmp_path / "in.onnx")), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("where", ["places", "size"])
def test_a_sparse_tensor_that_lies_is_refused(where: str, tmp_path: Path, rir: Runner) -> None:
    proto = sparse(dual(), coordinates=False)
    stored = proto.graph.sparse_initializer[0]
    if where == "places":
        stored.indices.CopyFrom(numpy_helper.from_array(np.array([10**6]), "w_places"))
        stored.values.CopyFrom(numpy_helper.from_array(np.ones(1, "f4"), "w"))
    else:
        del stored.dims[:]
        stored.dims.extend([1 << 20, 1 << 20, 3, 3])
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    ran = rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx")
    assert ran.code == 5
    assert "'w'" in ran.err or "not a valid ONNX model" in ran.err
    with pytest.raises(InputError):
        load_onnx(tmp_path / "in.onnx")
