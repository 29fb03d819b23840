"""Models that onnx's checker lets pass, or that it stumbles over; all were found by mutating files (tests/fuzz)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from rir_deploy.cli.common import MAX_MESSAGE
from rir_deploy.fold import fold
from tests.conftest import Runner
from tests.fold.graphs import Writer, relative_error

Change = Callable[[ModelProto], None]


def two_branches() -> ModelProto:
    """Two convolutions and their sum, which folds, and a slice whose bounds are constants."""
    w = Writer(dtype=np.float32)
    x = w.input(3)
    return ir.to_proto(w.model(w.slice(w.relu(w.add(w.conv(x, 4), w.conv(x, 4, 1))), 1, 3)))


def a_bound_of_eleven_bytes(model: ModelProto) -> None:
    bound = next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64)
    bound.raw_data = bytes(11)


def a_weight_that_is_a_map(model: ModelProto) -> None:
    kind = onnx.TypeProto(map_type=onnx.TypeProto.Map(key_type=TensorProto.INT64))
    model.graph.value_info.append(helper.make_value_info(model.graph.initializer[0].name, kind))


def no_output(model: ModelProto) -> None:
    del model.graph.output[:]


def three_dilations(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("dilations", [1, 1, 1]))


def a_reference_outside_of_a_function(model: ModelProto) -> None:
    attribute = next(one for one in model.graph.node[0].attribute if one.name == "pads")
    attribute.CopyFrom(AttributeProto(name="pads", type=AttributeProto.INTS, ref_attr_name="other"))


def a_data_file(location: str) -> Change:
    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (a_bound_of_eleven_bytes, "cannot be read"),
        (a_weight_that_is_a_map, "not a valid ONNX model"),
        (no_output, "gives no output"),
        (three_dilations, "not valid ONNX"),
        (a_reference_outside_of_a_function, "refers to a function's attribute"),
        (a_data_file("a" * 5000), "not beside it"),
        (a_data_file("weights.bin\0"), "not beside it"),
    ],
    ids=["bytes", "map", "output", "dilations", "reference", "long", "nul"],
)
def test_it_is_refused_in_a_sentence(change: Change, words: str, rir: Runner, tmp_path: Path) -> None:
    model, path = two_branches(), tmp_path / "model.onnx"
    onnx.save(model, path)
    assert rir("fold", path, "-o", tmp_path / "out.onnx").code == 0
    change(model)
    path.write_bytes(model.SerializeToString())
    ran = rir("fold", path, "-o", tmp_path / "out2.onnx")
    assert ran.code == 5, ran.err
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert len(ran.err) < MAX_MESSAGE + 100
    assert not (tmp_path / "out2.onnx").exists()


def test_a_terminal_sees_no_control_characters(rir: Runner, tmp_path: Path) -> None:
    model, path = two_branches(), tmp_path / "model.onnx"
    weight = model.graph.initializer[0]
    for node in model.graph.node:
        node.input[:] = ["\x1b[2J\nforged" if name == weight.name else name for name in node.input]
    weight.name = "\x1b[2J\nforged"
    weight.raw_data = np.full(4 * 3 * 9, np.nan, dtype=np.float32).tobytes()
    path.write_bytes(model.SerializeToString())
    ran = rir("fold", path, "-o", tmp_path / "out.onnx")
    assert ran.code == 5
    assert r"the weight '\x1b[2J\nforged' holds NaN" in ran.err
    assert ran.err.rstrip("\n").isprintable()


def test_shapes_that_cannot_be_inferred_are_no_noise(
    rir: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """onnx says several lines about it; the fold refuses by itself what it cannot do without them."""
    model, path = two_branches(), tmp_path / "model.onnx"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    onnx.save(model, path)
    rir("fold", path, "-o", tmp_path / "out.onnx")
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_bias_that_is_a_weight_is_left_to_the_runtime() -> None:
    """onnx's strict check takes it, and so does ONNX Runtime until it computes."""
    model = two_branches()
    conv = model.graph.node[0]
    conv.input.append(conv.input[1])
    (refusal,) = (one for one in fold(ir.from_proto(model)).refused if "bias" in one.reason)
    assert refusal.reason == "its bias has the shape (4, 3, 3, 3) where it has 4 output channels"


def test_declared_shapes_that_are_not_true_are_not_believed() -> None:
    """Split takes axis 0 where it names none: what the file says of channels is wrong then, and the slice would be."""
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [2, 2, 4, 4])
    numbers = {"sizes": [1, 1], "start": [1], "end": [2], "axis": [1]}
    weights = [numpy_helper.from_array(np.array(values), name) for name, values in numbers.items()]
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"]),
        helper.make_node("Concat", ["b", "b"], ["c"], axis=1),
        helper.make_node("Slice", ["c", "start", "end", "axis"], ["y"]),
    ]
    declared = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [2, 1, 4, 4]) for name in "ab"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in "ay"]
    graph = helper.make_graph(nodes, "g", [x], outputs, weights, value_info=declared)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert relative_error(model, fold(model).model) == 0


def test_a_slice_of_a_negative_size_does_not_end_the_process() -> None:
    """onnx's shape inference aborts there; such a size comes of a window that is larger than what it reads. The
    convolution is left as it is."""
    numbers = {"start": [0, 0], "end": [2**63 - 1] * 2, "axis": [2, 3], "step": [2, 2]}
    weights = [numpy_helper.from_array(np.array(values), name) for name, values in numbers.items()]
    weights += [numpy_helper.from_array(np.ones(3), name) for name in ("scale", "bias", "mean", "var")]
    weights.append(numpy_helper.from_array(np.ones((3, 3, 3, 3)), "w"))
    nodes = [
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1, -(2**63), 1, 1]),
        helper.make_node("Slice", ["c", "start", "end", "axis", "step"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 3, 7, 6])
    c = helper.make_tensor_value_info("c", TensorProto.DOUBLE, ["n", 3, 7, 6])
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 3, 4, 3])
    graph = helper.make_graph(nodes, "g", [x], [y], weights, value_info=[c])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    result = fold(model)
    assert [node.op_type for node in result.model.graph] == ["BatchNormalization", "Conv", "Slice"]
    assert [(refused.node, refused.reason) for refused in result.refused] == [("c", "its result has no elements")]


def test_an_output_given_twice_stays_twice() -> None:
    model = two_branches()
    model.graph.output.append(model.graph.output[0])
    before = ir.from_proto(model)
    folded = fold(before)
    assert folded.modified
    assert [value.name for value in folded.model.graph.outputs] == [value.name for value in before.graph.outputs]
    assert relative_error(before, folded.model) < 1e-5


def test_a_chain_of_thousands_is_folded() -> None:
    w = Writer()
    x = w.conv(w.input(2, (4, 4)), 2)
    for _ in range(3000):
        x = w.relu(x)
    model = w.model(w.concat(w.slice(x, 0, 1), x))
    assert relative_error(model, fold(model).model) < 1e-9


def test_what_the_runtime_refuses_is_named_by_where_it_should_have_gone(rir: Runner, tmp_path: Path) -> None:
    model, path = two_branches(), tmp_path / "model.onnx"
    model.graph.node.append(helper.make_node("NotAnOp", [model.graph.output[0].name], ["strange"], domain="nowhere"))
    model.opset_import.append(helper.make_opsetid("nowhere", 1))
    model.graph.output[0].name = "strange"
    onnx.save(model, path)
    ran = rir("build-engine", path, "-o", tmp_path / "engine", "--backend", "onnxruntime")
    assert ran.code == 5
    assert f"{tmp_path / 'engine'}/graph.onnx" in ran.err
    assert ".part" not in ran.err


@pytest.mark.parametrize(("protocol", "words"), [(0, "Unsupported"), (2, "posix.system"), (4, "Unsupported")])
def test_a_pickle_that_would_run_code_is_named_without_advice_to_run_it(
    protocol: int, words: str, rir: Runner, tmp_path: Path
) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"weight": _Runs()}, protocol=protocol))
    ran = rir("inspect", path)
    assert ran.code == 5
    assert ran.err.count("\n") == 1
    assert words in ran.err
    assert "weights_only" not in ran.err


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)
