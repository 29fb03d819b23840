"""What cannot be folded stays as it is, and is named with its reason."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

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


def test_nothing_to_fold() -> None:
    w = Writer()
    model = w.model(w.relu(w.conv(w.input(3), 4, bias=True)))
    assert not fold(model).modified
    with pytest.raises(GateError, match="nothing in the graph folds"):
        fold(model, FoldOptions(require=True))


def test_old_opsets_are_refused() -> None:
    w = Writer(opset=9)
    with pytest.raises(InputError, match="opset 9"):
        fold(w.model(w.relu(w.conv(w.input(3), 4))))
