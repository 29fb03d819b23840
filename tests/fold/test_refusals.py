"""What cannot be folded stays as it is, and is named with its reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import GateError, InputError
from rir_deploy.fold import FoldOptions, fold
from tests.fold.graphs import Writer, check, ops, relative_error


def test_auto_pad_of_a_dynamic_size_is_refused() -> None:
    w = Writer()
    x = w.input(3, ("h", "w"))
    model = w.model(w.relu(w.bn(w.conv(x, 4, 3, auto_pad="SAME_UPPER", strides=[2, 2]))))
    result = fold(model)
    assert "auto_pad" in result.refused[0].reason
    assert relative_error(model, result.model, size=9) < 1e-12


def test_a_weight_that_is_a_graph_input_is_refused() -> None:
    w = Writer()
    x = w.input(3)
    model = w.model(w.relu(w.bn(w.conv(w.relu(w.bn(w.conv(x, 4))), 4))))
    proto = ir.to_proto(model)
    weight = proto.graph.node[3].input[1]
    dims = next(t.dims for t in proto.graph.initializer if t.name == weight)
    proto.graph.input.append(helper.make_tensor_value_info(weight, w.tensor_type, dims))
    model = ir.from_proto(proto)
    result = fold(model)
    assert weight in result.refused[0].reason
    assert ops(result.model) == {"Conv": 2, "Relu": 2, "BatchNormalization": 1}
    assert relative_error(model, result.model) < 1e-9


def test_training_mode_batch_norm_is_refused() -> None:
    w = Writer()
    x = w.input(3)
    c = w.conv(x, 4)
    parameters = [w.constant(np.ones(4)) for _ in range(4)]
    y = w.op("BatchNormalization", [c, *parameters], 4, outputs=3, training_mode=1)
    result = fold(w.model(w.relu(y)))
    assert not result.modified
    assert "training mode" in result.refused[0].reason


@pytest.mark.parametrize(("opset", "outputs"), [(11, 5), (12, 5), (13, 3), (13, 2)])
def test_statistics_as_outputs_are_training_mode_before_opset_14(opset: int, outputs: int) -> None:
    """Whether anything reads them or not; onnx's own check gives them sizes for training too."""
    w = Writer(opset=opset)
    parameters = [w.constant(np.ones(4)) for _ in range(4)]
    y = w.op("BatchNormalization", [w.conv(w.input(3), 4), *parameters], 4, outputs=outputs)
    result = fold(w.model(w.relu(y)))
    assert ops(result.model)["BatchNormalization"] == 1
    assert "training mode" in result.refused[0].reason


@pytest.mark.parametrize("places", [0, 1, 2, 3])
def test_a_batch_norm_of_other_channels_is_refused(places: int) -> None:
    """Of one number instead of four: numpy would broadcast it."""
    w = Writer()
    parameters = [w.constant(np.ones(1 if place == places else 4)) for place in range(4)]
    w.nodes.append(helper.make_node("BatchNormalization", [w.conv(w.input(3), 4), *parameters], ["y"], name="bn"))
    w.channels["y"] = 4
    graph = helper.make_graph(w.nodes, "g", w.inputs, [helper.make_tensor_value_info("y", 11, None)], w.weights)
    result = fold(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)))
    assert "channels" in result.refused[0].reason


def test_quantised_weights_are_left_alone() -> None:
    w = Writer(dtype=np.float32)
    x = w.input(3)
    stored = w.constant(w.rng.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8))
    scale = w.constant(np.array(0.01))
    weight = w.op("DequantizeLinear", [stored, scale], 4)
    w.channels[x] = 3
    model = w.model(w.relu(w.op("Conv", [x, weight], 4, kernel_shape=[3, 3])))
    result = fold(model)
    assert not result.modified
    assert "not a constant" in result.refused[0].reason


def test_control_flow_keeps_what_it_captures() -> None:
    """A subgraph reads r by name; the fold must still hand it r."""
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    y = w.relu(w.add(w.conv(r, 4), w.conv(t, 4)))
    out = helper.make_tensor_value_info("branch", w.tensor_type, None)
    then = helper.make_graph([helper.make_node("Add", [r, y], ["branch"])], "then", [], [out])
    other_out = helper.make_tensor_value_info("branch2", w.tensor_type, None)
    other = helper.make_graph([helper.make_node("Sub", [y, r], ["branch2"])], "else", [], [other_out])
    w.weights.append(numpy_helper.from_array(np.array(True), "condition"))
    result_name = w.op("If", ["condition"], 4, then_branch=then, else_branch=other)
    model = w.model(result_name)
    folded = check(model)
    assert ops(folded)["Conv"] == 2
    assert [(refusal.node, "control flow" in refusal.reason) for refusal in fold(model).refused] == [("n8", True)]


def _numbers(w: Writer, *shape: int) -> str:
    """A second input of the graph, of fixed shape."""
    w.inputs.append(helper.make_tensor_value_info("numbers", w.tensor_type, shape))
    return "numbers"


def _reshaped(w: Writer, x: str) -> str:
    w.inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [4]))
    return w.relu(w.op("Conv", [w.op("Reshape", [x, "sizes"], 4), w.constant(w.rng.standard_normal((4, 4, 1, 1)))], 4))


def _computed_weight(w: Writer, x: str) -> str:
    return w.op("Conv", [x, w.op("Tanh", [_numbers(w, 4, 4, 1, 1)], 4)], 4)


def _computed_bias(w: Writer, x: str) -> str:
    return w.op("Conv", [x, w.constant(w.rng.standard_normal((4, 4, 1, 1))), _numbers(w, 4)], 4)


def _computed_norm(w: Writer, x: str) -> str:
    return w.op("BatchNormalization", [x, _numbers(w, 4), *(w.constant(np.ones(4)) for _ in range(3))], 4)


def _straddling(w: Writer, x: str) -> str:
    return w.conv(w.concat(w.relu(w.conv(x, 3)), w.relu(w.conv(x, 5, bias=True))), 2, group=2)


def _cut_group(w: Writer, x: str) -> str:
    grouped = w.conv(x, 8, group=2)
    return w.concat(w.slice(grouped, 3, 8), w.slice(grouped, 0, 3))


def _padded_constant(w: Writer, x: str) -> str:
    shifted = w.op("Add", [w.pad_channels(x, 6), w.constant(np.ones((6, 1, 1)))], 6)
    return w.conv(shifted, 4)


def _divided(w: Writer, x: str) -> str:
    return w.op("Div", [x, w.constant(np.array([1.0, 0.0, 2.0, 3.0]).reshape(4, 1, 1))], 4)


def _dropped(w: Writer, x: str) -> str:
    return w.op("Dropout", [x, w.constant(np.array(0.5)), w.constant(np.array(True))], 4)


# What is refused, with which reason, and whether the graph can be run here.
REASONS: list[tuple[Callable[[Writer, str], str], str, str, bool]] = [
    (_reshaped, "Conv", "no channel count to fold over", False),
    (_computed_weight, "Conv", "computed at run time", True),
    (_computed_bias, "Conv", "its bias 'numbers' is not a constant", True),
    (_computed_norm, "BatchNormalization", "its parameters are not constants", True),
    (_straddling, "Conv", "straddles two concatenated tensors", True),
    (_cut_group, "Slice", "cuts through a group", True),
    (_padded_constant, "Conv", "pads a constant that is not zero", True),
    (_divided, "Div", "divides by zero", False),
    (_dropped, "Dropout", "it is in training mode; export", False),
]


@pytest.mark.parametrize(("make", "op", "reason", "runs"), REASONS)
def test_a_part_is_refused_with_its_reason_and_the_rest_folds(
    make: Callable[[Writer, str], str], op: str, reason: str, runs: bool
) -> None:
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    model = w.model(w.relu(w.bn(w.conv(w.relu(make(w, x)), 3))))
    result = fold(model)
    kinds = {node.name: node.op_type for node in model.graph}
    assert {kinds[refusal.node] for refusal in result.refused if reason in refusal.reason} == {op}
    assert result.modified
    assert result.after.ops.get("BatchNormalization", 0) == (op == "BatchNormalization")
    if runs:
        assert relative_error(model, result.model) < 1e-9


@pytest.mark.parametrize("op", ["ConvInteger", "QLinearConv"])
def test_integer_convolutions_are_refused(op: str) -> None:
    w = Writer(dtype=np.float32)
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    scale, zero = w.constant(np.array(0.1)), w.constant(np.array(0, dtype=np.uint8))
    levels = w.op("QuantizeLinear", [x, scale, zero], 4)
    weight = w.constant(w.rng.integers(0, 255, (4, 4, 1, 1)).astype(np.uint8))
    inputs = [levels, weight] if op == "ConvInteger" else [levels, scale, zero, weight, scale, zero, scale, zero]
    y = w.op(op, inputs, 4)
    cast = (
        w.op("Cast", [y], 4, to=w.tensor_type) if op == "ConvInteger" else w.op("DequantizeLinear", [y, scale, zero], 4)
    )
    model = w.model(cast)
    result = fold(model)
    assert [(refusal.node, "integers" in refusal.reason) for refusal in result.refused] == [("n4", True)]
    assert result.after.ops["Conv"] == 1
    assert "BatchNormalization" not in result.after.ops


def test_nothing_to_fold() -> None:
    w = Writer()
    model = w.model(w.relu(w.conv(w.input(3), 4, bias=True)))
    assert not fold(model).modified
    with pytest.raises(GateError, match="nothing in the graph folds"):
        fold(model, FoldOptions(require=True))


def test_old_opsets_are_refused() -> None:
    w = Writer(opset=6)
    with pytest.raises(InputError, match="opset 6"):
        fold(w.model(w.relu(w.conv(w.input(3), 4))))
