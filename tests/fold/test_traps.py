"""Places where a naive fold is wrong, or right and slower."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from rir_deploy.errors import GateError, InputError
from rir_deploy.fold import FoldOptions, fold
from rir_deploy.fold.lower import read_members
from tests.fold.graphs import Writer, ops, relative_error


def _check(model: ir.Model, **options: int) -> ir.Model:
    result = fold(model)
    assert relative_error(model, result.model, **options) < 1e-9
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result.model


def test_bias_before_a_padded_conv_stays() -> None:
    w = Writer()
    x = w.input(3)
    model = w.model(w.conv(w.conv(x, 4, bias=True), 4))
    assert ops(_check(model)) == {"Conv": 2}


def test_bias_before_an_unpadded_conv_folds() -> None:
    w = Writer()
    x = w.input(3)
    model = w.model(w.conv(w.conv(x, 8, bias=True), 2, 1))
    assert ops(_check(model)) == {"Conv": 1}


def test_composing_stops_where_it_would_add_work() -> None:
    """1x1 to 2 channels, then 3x3 to 8: one 3x3 from 8 channels to 8 would cost more."""
    w = Writer()
    x = w.input(8)
    model = w.model(w.conv(w.conv(x, 2, 1), 8, 3))
    assert ops(_check(model)) == {"Conv": 2}


@pytest.mark.parametrize("size", [7, 8, 9])
def test_strided_identity_with_odd_sizes(size: int) -> None:
    w = Writer()
    x = w.input(4, ("h", "w"))
    strided = w.add(w.conv(x, 4, 3, strides=[2, 2]), w.subsample(x, 2))
    folded = _check(w.model(w.relu(strided)), size=size)
    assert ops(folded) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad(auto_pad: str, stride: int) -> None:
    w = Writer()
    x = w.input(3, (9, 9))
    conv = w.conv(x, 4, 3, auto_pad=auto_pad, strides=[stride, stride])
    folded = _check(w.model(w.relu(w.bn(conv))), size=9)
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_auto_pad_of_a_dynamic_size_is_refused() -> None:
    w = Writer()
    x = w.input(3, ("h", "w"))
    model = w.model(w.relu(w.bn(w.conv(x, 4, 3, auto_pad="SAME_UPPER", strides=[2, 2]))))
    result = fold(model)
    assert "auto_pad" in result.refused[0].reason
    assert relative_error(model, result.model, size=9) < 1e-12


def test_channel_padded_shortcut_needs_no_pad() -> None:
    w = Writer()
    x = w.input(3)
    shortcut = w.pad_channels(w.subsample(x, 2), 6)
    folded = _check(w.model(w.relu(w.bn(w.add(w.conv(x, 6, strides=[2, 2]), shortcut)))))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_asymmetric_padding_dilation_and_groups() -> None:
    w = Writer()
    x = w.input(4)
    a = w.conv(x, 4, 3, pads=[2, 1, 2, 3], dilations=[2, 2])
    b = w.conv(x, 4, (3, 3), pads=[2, 1, 2, 3], dilations=[2, 2])
    c = w.conv(a if False else x, 4, 3, group=2, pads=[2, 1, 2, 3], dilations=[2, 2])
    folded = _check(w.model(w.relu(w.add(a, b, c))))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_different_dilations_are_not_merged_into_a_larger_kernel() -> None:
    w = Writer()
    x = w.input(4)
    model = w.model(w.relu(w.add(w.conv(x, 4), w.conv(x, 4, pads=[2, 2, 2, 2], dilations=[2, 2]))))
    assert ops(_check(model))["Conv"] == 2


def test_clips_join_only_with_equal_bounds() -> None:
    for high, convs in ((6.0, 2), (5.0, 3)):
        w = Writer()
        x = w.input(3)
        low = w.constant(np.array(0.0))
        r = w.op("Clip", [w.conv(x, 4), low, w.constant(np.array(6.0))], 4)
        t = w.op("Clip", [w.conv(x, 4), low, w.constant(np.array(high))], 4)
        y = w.relu(w.add(w.conv(r, 4), w.conv(t, 4)))
        folded = _check(w.model(y))
        assert ops(folded)["Conv"] == convs, high


def test_leaky_relus_join_only_with_equal_slopes() -> None:
    for slope, activations in ((0.1, 2), (0.2, 3)):
        w = Writer()
        x = w.input(3)
        r = w.op("LeakyRelu", [w.conv(x, 4)], 4, alpha=0.1)
        t = w.op("LeakyRelu", [w.conv(x, 4)], 4, alpha=slope)
        y = w.op("LeakyRelu", [w.add(w.conv(r, 4), w.conv(t, 4))], 4, alpha=0.1)
        assert ops(_check(w.model(y)))["LeakyRelu"] == activations


def test_an_inner_tensor_that_is_also_an_output() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))
    a = w.bn(w.add(w.conv(r, 4), w.conv(t, 4), r))
    model = w.model(w.relu(a), r, a)
    folded = _check(model)
    assert [value.name for value in folded.graph.outputs] == [value.name for value in model.graph.outputs]
    assert ops(folded) == {"Conv": 2, "Relu": 2, "Slice": 1}


def test_one_tensor_as_two_outputs_keeps_both_names() -> None:
    w = Writer()
    y = w.relu(w.bn(w.conv(w.input(3), 4)))
    alias = w.op("Identity", [y], 4)
    model = w.model(y, alias)
    folded = _check(model)
    assert [value.name for value in folded.graph.outputs] == [y, alias]


def test_shared_weights() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    shared = w.constant(w.rng.standard_normal((4, 4, 3, 3)))
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    y = w.add(w.op("Conv", [r, shared], 4, **attributes), w.op("Conv", [t, shared], 4, **attributes))
    model = w.model(w.relu(y))
    result = fold(model)
    assert relative_error(model, result.model) < 1e-9
    # The joined kernel would store the shared weight twice.
    assert result.after.weight_bytes <= result.before.weight_bytes


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


def test_streams_that_never_meet_stay_apart() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    for _ in range(2):
        r, t = w.relu(w.bn(w.add(w.conv(r, 4), r))), w.relu(w.bn(w.conv(t, 4)))
    folded = _check(w.model(w.op("GlobalAveragePool", [w.concat(r, t)], 8)))
    assert ops(folded)["Conv"] == 6
    assert "Slice" not in ops(folded)


def test_a_reader_of_one_stream_only_keeps_the_streams_apart_there() -> None:
    """The last conv reads t alone: joining r and t before it would make it slice or multiply by zeros."""
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    r, t = w.relu(w.add(w.conv(r, 4), w.conv(t, 4))), w.relu(w.add(w.conv(t, 4), w.conv(r, 4)))
    folded = _check(w.model(w.op("GlobalAveragePool", [w.conv(t, 2)], 2), w.op("GlobalAveragePool", [r], 4)))
    assert "Slice" not in ops(folded)


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
    folded = _check(model)
    assert ops(folded)["Conv"] == 2


def test_elementwise_swish_and_gates_survive() -> None:
    w = Writer()
    x = w.input(3)
    a = w.bn(w.conv(x, 4))
    gate = w.op("Sigmoid", [w.op("GlobalAveragePool", [a], 4)], 4)
    y = w.op("Mul", [w.op("Mul", [a, w.op("Sigmoid", [a], 4)], 4), gate], 4)
    assert ops(_check(w.model(y)))["Conv"] == 1


def test_broadcast_add_is_not_taken_for_a_shortcut() -> None:
    w = Writer()
    x = w.input(4)
    pooled = w.op("GlobalAveragePool", [x], 4)
    model = w.model(w.relu(w.op("Add", [w.bn(w.conv(x, 4)), pooled], 4)))
    assert ops(_check(model))["Add"] == 1


def test_folding_from_constants_of_the_exporter() -> None:
    """ResNet Init: the weight is W + I, added in the graph."""
    w = Writer()
    x = w.input(4)
    identity = np.zeros((4, 4, 3, 3))
    identity[range(2), range(2), 1, 1] = 1.0
    weight = w.op("Add", [w.constant(w.rng.standard_normal((4, 4, 3, 3))), w.constant(identity)], 4)
    y = w.relu(w.bn(w.op("Conv", [x, weight], 4, kernel_shape=[3, 3], pads=[1, 1, 1, 1])))
    assert ops(_check(w.model(y))) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_stay_what_they_are(dtype: type) -> None:
    w = Writer(dtype=dtype)
    x = w.input(3)
    model = w.model(w.relu(w.add(w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1)))))
    result = fold(model)
    assert ops(result.model) == {"Conv": 1, "Relu": 1}
    assert {v.dtype for v in result.model.graph.initializers.values()} == {model.graph.inputs[0].dtype}
    assert relative_error(model, result.model) < (2e-2 if dtype is np.float16 else 1e-9)


@pytest.mark.parametrize(("branches", "convs"), [("repvgg", 1), ("acnet", 1), ("depthwise", 1), ("unpaired", 2)])
def test_multi_branch_training_blocks(branches: str, convs: int) -> None:
    w = Writer()
    x = w.input(4)
    parts = {
        "repvgg": lambda: [w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1)), w.bn(x)],
        "acnet": lambda: [w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, (1, 3))), w.bn(w.conv(x, 4, (3, 1)))],
        "depthwise": lambda: [w.bn(w.conv(x, 4, group=4)), w.bn(w.conv(x, 4, 1, group=4)), w.bn(x)],
        # Without the 3x3, a 3x3 kernel for 1x3 and 3x1 would cost half as much again.
        "unpaired": lambda: [w.conv(x, 4, (1, 3)), w.conv(x, 4, (3, 1))],
    }[branches]()
    assert ops(_check(w.model(w.relu(w.add(*parts)))))["Conv"] == convs


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


def test_names_metadata_and_provenance_of_channels() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 2))
    model = w.model(w.relu(w.add(w.conv(r, 4), w.conv(t, 4))))
    model.metadata_props["author"] = "someone"
    folded = _check(model)
    assert folded.metadata_props["author"] == "someone"
    assert folded.graph.inputs[0].name == "x"
    assert str(folded.graph.inputs[0].shape[0]) == "batch"
    joined = next(node for node in folded.graph if node.op_type == "Relu")
    assert read_members(joined) == [(r, 0, 4), (t, 0, 2)]


def test_a_long_chain_neither_recurses_nor_slows() -> None:
    w = Writer()
    x = w.input(2, (2, 2))
    r, t = w.relu(w.conv(x, 2, 1)), w.relu(w.conv(x, 2, 1))
    for _ in range(400):
        a = w.add(w.conv(r, 2, 1), w.conv(t, 2, 1), r)
        b = w.add(w.conv(t, 2, 1), w.conv(r, 2, 1))
        r, t = w.relu(a), w.relu(b)
    folded = fold(w.model(w.concat(r, t)))
    assert folded.after.ops == {"Conv": 401, "Relu": 401}
