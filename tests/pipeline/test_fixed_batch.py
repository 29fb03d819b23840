"""Models of a fixed batch, as most exporters write them: calibrated and verified in it, or made dynamic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import InputError
from rir_deploy.graph.batch import with_dynamic_batch
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.batching import in_batches
from tests.conftest import Runner

RANDOM = np.random.default_rng(0)
IMAGES = 42
WEIGHTS = {
    "w": (RANDOM.standard_normal((8, 3, 3, 3)) * 0.3).astype("f4"),
    "v": (RANDOM.standard_normal((8, 8, 3, 3)) * 0.3).astype("f4"),
    "head": RANDOM.standard_normal((8, 4)).astype("f4"),
    "bias": np.zeros(4, "f4"),
}
PIXELS = RANDOM.integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
PIXELS[:, :, :, 0] = PIXELS[:, :, :, 0] * RANDOM.uniform(size=(IMAGES, 1, 1))
PIXELS[:, :, :, 2] = PIXELS[:, :, :, 2] * RANDOM.uniform(size=(IMAGES, 1, 1))
Given = tuple[object, ...]


def network(batch: int | str, flatten: str = "Flatten") -> onnx.ModelProto:
    """A small classifier; its head is flattened by a Flatten, or a Reshape to the batch that it was traced with."""
    weights = dict(WEIGHTS)
    flat = helper.make_node("Flatten", ["g"], ["f"])
    first: list[onnx.NodeProto] = []
    if flatten != "Flatten":
        flat = helper.make_node("Reshape", ["g", "target"], ["f"])
    if flatten == "Reshape":
        weights["target"] = np.array([batch, -1])
    if flatten == "Reshape to a Constant":
        first = [helper.make_node("Constant", [], ["target"], value=numpy_helper.from_array(np.array([batch, 8])))]
    nodes = [
        *first,
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        flat,
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 16, 16])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """42 images, which no batch below divides, with labels that the network gets mostly right."""
    x = ((PIXELS / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype("f4")
    np.savez(tmp_path / "data.npz", images=PIXELS, labels=answer(saved(tmp_path, "N"), x).argmax(axis=1))
    (tmp_path / "r.toml").write_text(
        'classes = ["a", "b", "c", "d"]\n[preprocess]\nsize = [16, 16]\nmode = "RGB"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n[calibration]\nsamples = 40\n"
    )
    return ("--data", tmp_path / "data.npz", "--recipe", tmp_path / "r.toml")


def balance() -> None:
    """A bias by which the classes come about equally often."""
    x = ((PIXELS / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype("f4")
    logits = onnxruntime.InferenceSession(network("N").SerializeToString()).run(None, {"x": x})[0]
    WEIGHTS["bias"] = -np.median(logits, axis=0).astype("f4")


balance()


def saved(folder: Path, batch: int | str, flatten: str = "Flatten") -> Path:
    path = folder / f"{batch}.onnx"
    onnx.save(network(batch, flatten), path)
    return path


def answer(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0])


@pytest.mark.parametrize("batch", [1, 4, 32, 64])
def test_every_command_takes_it(batch: int, given: Given, tmp_path: Path, rir: Runner) -> None:
    path, dynamic = saved(tmp_path, batch), saved(tmp_path, "N")
    for command in (
        ("quantize", path, "-o", tmp_path / "q.onnx", "--qdq", "cpu", "--method", "minmax", *given),
        ("build-engine", path, "-o", tmp_path / "i8", "--int8", "--backend", "onnxruntime", *given),
        ("build-engine", path, "-o", tmp_path / "f16", "--fp16", "--backend", "openvino", *given),
        ("verify", path, path, *given),
        ("verify", dynamic, path, *given),
        ("verify", path, tmp_path / "q.onnx", "--layers", *given),
        ("verify", dynamic, tmp_path / "i8", *given),
        ("verify", path, tmp_path / "f16", *given),
    ):
        ran = rir(*command)
        assert ran.code == 0, (command, ran.err)
    ran = rir("verify", dynamic, path, "--json", *given)
    assert (ran.json["images"], ran.json["agreement"]) == (IMAGES, 1.0)


def test_two_different_fixed_batches_are_held_against_each_other(given: Given, tmp_path: Path, rir: Runner) -> None:
    ran = rir("verify", saved(tmp_path, 4), saved(tmp_path, 6), "--json", *given)
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["agreement"]) == (IMAGES, 1.0)
    layers = rir("verify", tmp_path / "4.onnx", tmp_path / "6.onnx", "--layers", *given)
    assert layers.code == 2
    assert "take no batch in common (4 to 4, 6 to 6)" in layers.err


def test_calibration_finds_what_it_finds_in_a_dynamic_batch(given: Given, tmp_path: Path, rir: Runner) -> None:
    """Extremes do not depend on how the images are grouped; the last group begins with the first images again."""
    ranges = []
    for batch in (7, "N"):
        table = tmp_path / f"{batch}.json"
        quantize = ("quantize", saved(tmp_path, batch), "-o", tmp_path / f"{batch}.q.onnx", "--qdq", "cpu")
        ran = rir(*quantize, "--method", "minmax", "--rounding", "nearest", "--save-ranges", table, *given)
        assert ran.code == 0, ran.err
        ranges.append({key: json.loads(table.read_text())[key] for key in ("ranges", "samples")})
    assert ranges[0]["samples"] == ranges[1]["samples"] == 40
    for name, pair in ranges[1]["ranges"].items():
        np.testing.assert_allclose(ranges[0]["ranges"][name], pair, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("flatten", ["Flatten", "Reshape", "Reshape to a Constant"])
@pytest.mark.parametrize("precision", ["--fp32", "--int8"])
def test_another_batch_makes_it_dynamic(
    flatten: str, precision: str, given: Given, tmp_path: Path, rir: Runner
) -> None:
    path = saved(tmp_path, 4, flatten)
    data = given if precision == "--int8" else given[2:]
    build = ("build-engine", path, "-o", tmp_path / "e", precision, "--backend", "onnxruntime", "--batch", "1,4,9")
    ran = rir(*build, "--json", *data)
    assert ran.code == 0, ran.err
    assert ran.json["batch"] == {"min": 1, "opt": 4, "max": 9}
    x = RANDOM.standard_normal((9, 3, 16, 16)).astype("f4")
    expected = answer(saved(tmp_path, "N"), x)
    for count in (1, 3, 4, 9):
        found = answer(tmp_path / "e" / "graph.onnx", x[:count])
        tolerance = 1e-5 if precision == "--fp32" else 0.1
        np.testing.assert_allclose(found, expected[:count], atol=tolerance * np.abs(expected).max())
    assert rir("verify", path, tmp_path / "e", *given).code == 0


def test_its_own_batch_keeps_it_fixed(given: Given, tmp_path: Path, rir: Runner) -> None:
    for batch in ((), ("--batch", "4,4,4")):
        build = ("build-engine", saved(tmp_path, 4), "-o", tmp_path / "e", "--backend", "onnxruntime", "--force")
        ran = rir(*build, *batch, "--json", *given[2:])
        assert ran.json["batch"] == {"min": 4, "opt": 4, "max": 4}
        assert load_onnx(tmp_path / "e" / "graph.onnx").graph.inputs[0].shape == ir.Shape([4, 3, 16, 16])


def mixing(batch: int) -> onnx.ModelProto:
    """Every image is answered less the mean of its batch."""
    proto = network(batch)
    proto.graph.node[-1].output[0] = "own"
    proto.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0]),
            helper.make_node("Sub", ["own", "mean"], ["logits"]),
        ]
    )
    return proto


def fixed_elsewhere(batch: int) -> onnx.ModelProto:
    """A constant with a row for every image of the batch."""
    proto = network(batch)
    proto.graph.node[-1].output[0] = "own"
    proto.graph.node.append(helper.make_node("Add", ["own", "rows"], ["logits"]))
    rows = np.arange(4 * batch, dtype="f4").reshape(batch, 4)
    proto.graph.initializer.append(numpy_helper.from_array(rows, "rows"))
    return proto


@pytest.mark.parametrize("make", [mixing, fixed_elsewhere])
def test_a_graph_that_has_its_batch_elsewhere_is_refused(make, given: Given, tmp_path: Path, rir: Runner) -> None:  # type: ignore[no-untyped-def]
    onnx.save(make(4), tmp_path / "in.onnx")
    with pytest.raises(InputError, match="made dynamic it would not answer as before"):
        with_dynamic_batch(load_onnx(tmp_path / "in.onnx"))
    build = ("build-engine", tmp_path / "in.onnx", "-o", tmp_path / "e", "--backend", "onnxruntime")
    ran = rir(*build, "--batch", "1,1,8", *given[2:])
    assert ran.code == 5
    assert "the model takes batches of 4 only" in ran.err
    assert not (tmp_path / "e").exists()
    assert rir(*build, *given[2:]).code == 0


def test_a_graph_that_no_runtime_runs_in_batches_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime has no convolution of float64, and onnx's reference is not asked for rows."""
    proto = network(4)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("f8"), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(InputError, match="it cannot be checked: ONNX Runtime does not take it"):
        with_dynamic_batch(ir.from_proto(proto))


def test_cutting_and_padding() -> None:
    """Against the identity: whatever batches a model takes, every image is answered once, in order."""
    for low, high in ((1, 1), (4, 4), (3, 5), (1, 7), (8, 8)):

        def run(batch: NDArray[np.float32], low: int = low, high: int = high) -> dict[str, NDArray[np.float32]]:
            assert low <= len(batch) <= high
            return {"y": batch * 2, "z": batch[:, 0]}

        for count in (1, 2, 5, 8, 13):
            x = RANDOM.standard_normal((count, 3)).astype("f4")
            found = in_batches(run, low, high)(x)
            np.testing.assert_array_equal(found["y"], x * 2)
            np.testing.assert_array_equal(found["z"], x[:, 0])


def test_an_output_without_a_row_an_image_cannot_be_cut() -> None:
    run = in_batches(lambda batch: {"y": batch.sum(keepdims=True)}, 4, 4)
    with pytest.raises(InputError, match=r"'y' has the shape .* not one row an image"):
        run(np.ones((3, 2), "f4"))


def test_a_model_of_one_image_without_the_axis_of_the_batch(given: Given, tmp_path: Path, rir: Runner) -> None:
    proto = network(1)
    proto.graph.node[-1].output[0] = "rows"
    proto.graph.node.append(helper.make_node("Squeeze", ["rows", "axis"], ["logits"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    del proto.graph.output[0].type.tensor_type.shape.dim[0]
    onnx.save(proto, tmp_path / "in.onnx")
    ran = rir("verify", saved(tmp_path, "N"), tmp_path / "in.onnx", "--json", *given)
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["agreement"]) == (IMAGES, 1.0)
    quantize = ("quantize", tmp_path / "in.onnx", "-o", tmp_path / "q.onnx", "--qdq", "cpu", "--method", "minmax")
    assert rir(*quantize, *given).code == 0
