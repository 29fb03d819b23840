"""Places where a naive fold is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from rir_deploy.fold import fold
from tests.fold.graphs import Writer, check, ops, relative_error


def test_bias_before_a_padded_conv_stays() -> None:
    w = Writer()
    x = w.input(3)
    model = w.model(w.conv(w.conv(x, 4, bias=True), 4))
    assert ops(check(model)) == {"Conv": 2}


def test_bias_before_an_unpadded_conv_folds() -> None:
    w = Writer()
    x = w.input(3)
    model = w.model(w.conv(w.conv(x, 8, bias=True), 2, 1))
    assert ops(check(model)) == {"Conv": 1}


def test_composing_stops_where_it_would_add_work() -> None:
    """1x1 to 2 channels, then 3x3 to 8: one 3x3 from 8 channels to 8 would cost more."""
    w = Writer()
    x = w.input(8)
    model = w.model(w.conv(w.conv(x, 2, 1), 8, 3))
    assert ops(check(model)) == {"Conv": 2}


@pytest.mark.parametrize("size", [7, 8, 9])
def test_strided_identity_with_odd_sizes(size: int) -> None:
    w = Writer()
    x = w.input(4, ("h", "w"))
    strided = w.add(w.conv(x, 4, 3, strides=[2, 2]), w.subsample(x, 2))
    folded = check(w.model(w.relu(strided)), size=size)
    assert ops(folded) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("stride", "size"), [(1, 9), (2, 9), (2, 8)])
def test_auto_pad(auto_pad: str, stride: int, size: int) -> None:
    """At an even size and a stride of two, SAME pads one side only: which one is the difference of the two."""
    w = Writer()
    x = w.input(3, (size, size))
    conv = w.conv(x, 4, 3, auto_pad=auto_pad, strides=[stride, stride])
    folded = check(w.model(w.relu(w.bn(conv))), size=size)
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_channel_padded_shortcut_needs_no_pad() -> None:
    w = Writer()
    x = w.input(3)
    shortcut = w.pad_channels(w.subsample(x, 2), 6)
    folded = check(w.model(w.relu(w.bn(w.add(w.conv(x, 6, strides=[2, 2]), shortcut)))))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_asymmetric_padding_dilation_and_groups() -> None:
    w = Writer()
    x = w.input(4)
    a = w.conv(x, 4, 3, pads=[2, 1, 2, 3], dilations=[2, 2])
    b = w.conv(x, 4, (3, 3), pads=[2, 1, 2, 3], dilations=[2, 2])
    c = w.conv(a if False else x, 4, 3, group=2, pads=[2, 1, 2, 3], dilations=[2, 2])
    folded = check(w.model(w.relu(w.add(a, b, c))))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_different_dilations_are_not_merged_into_a_larger_kernel() -> None:
    w = Writer()
    x = w.input(4)
    model = w.model(w.relu(w.add(w.conv(x, 4), w.conv(x, 4, pads=[2, 2, 2, 2], dilations=[2, 2]))))
    assert ops(check(model))["Conv"] == 2


def test_broadcast_add_is_not_taken_for_a_shortcut() -> None:
    w = Writer()
    x = w.input(4)
    pooled = w.op("GlobalAveragePool", [x], 4)
    model = w.model(w.relu(w.op("Add", [w.bn(w.conv(x, 4)), pooled], 4)))
    assert ops(check(model))["Add"] == 1


def test_folding_from_constants_of_the_exporter() -> None:
    """ResNet Init: the weight is W + I, added in the graph."""
    w = Writer()
    x = w.input(4)
    identity = np.zeros((4, 4, 3, 3))
    identity[range(2), range(2), 1, 1] = 1.0
    weight = w.op("Add", [w.constant(w.rng.standard_normal((4, 4, 3, 3))), w.constant(identity)], 4)
    y = w.relu(w.bn(w.op("Conv", [x, weight], 4, kernel_shape=[3, 3], pads=[1, 1, 1, 1])))
    assert ops(check(w.model(y))) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_stay_what_they_are(dtype: type) -> None:
    w = Writer(dtype=dtype)
    x = w.input(3)
    model = w.model(w.relu(w.add(w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1)))))
    result = fold(model)
    assert ops(result.model) == {"Conv": 1, "Relu": 1}
    assert {v.dtype for v in result.model.graph.initializers.values()} == {model.graph.inputs[0].dtype}
    assert relative_error(model, result.model) < (2e-2 if dtype is np.float16 else 1e-9)


def test_parts_of_different_precision_keep_their_own() -> None:
    """A half-precision body between two casts, as a mixed-precision export has it."""
    w = Writer(dtype=np.float16)
    w.dtype = np.dtype(np.float32)
    x = w.input(3)
    y = w.relu(w.bn(w.conv(x, 4)))
    w.dtype = np.dtype(np.float16)
    h = w.op("Cast", [y], 4, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float16)))
    h = w.relu(w.add(w.bn(w.conv(h, 4)), w.bn(w.conv(h, 4, 1)), h))
    w.dtype = np.dtype(np.float32)
    model = w.model(w.op("Cast", [h], 4, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))))
    result = fold(model)
    assert ops(result.model) == {"Conv": 2, "Relu": 2, "Cast": 2}
    types = [node.inputs[1].dtype for node in result.model.graph if node.op_type == "Conv"]  # type: ignore[union-attr]
    assert types == [ir.DataType.FLOAT, ir.DataType.FLOAT16]
    assert relative_error(model, result.model) < 1e-2
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


def test_a_graph_of_functions() -> None:
    """As older exporters write modules: each block is a call, with weights of its own."""
    w = Writer()
    x = w.input(3)
    y = w.relu(w.add(w.bn(w.conv(x, 3)), w.bn(w.conv(x, 3, 1)), x))
    proto = ir.to_proto(w.model(y))
    weights = list(proto.graph.initializer)
    names = [tensor.name for tensor in weights]
    block = helper.make_function("blocks", "Block", [x, *names], [y], proto.graph.node, proto.opset_import)
    for tensor in weights:
        proto.graph.initializer.add().CopyFrom(tensor)
        proto.graph.initializer[-1].name = f"{tensor.name}_2"
    del proto.graph.node[:], proto.graph.value_info[:]
    first = helper.make_node("Block", [x, *names], ["middle"], domain="blocks")
    second = helper.make_node("Block", ["middle", *(f"{name}_2" for name in names)], [y], domain="blocks")
    proto.graph.node.extend([first, second])
    proto.functions.append(block)
    proto.opset_import.append(helper.make_opsetid("blocks", 1))
    model = ir.from_proto(proto)
    result = fold(model)
    assert (result.before.convs, result.before.ops["Relu"]) == (4, 2)
    assert result.blocks == 2
    assert ops(result.model) == {"Conv": 2, "Relu": 2}
    assert relative_error(model, result.model) < 1e-9
