"""What the stage writes: placement node by node, every number, and what it refuses."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError, UsageError
from rir_deploy.quantize import QuantizeOptions, Range, RangeTable, activation_names, quantize
from tests.quantize.audit import audit
from tests.quantize.graphs import (
    SOURCES,
    array,
    batches,
    calibrate,
    chain,
    edges,
    end,
    ops,
    residual,
    run,
    sqnr_db,
    two_streams,
    writer,
)

CPU = QuantizeOptions("cpu")
GRAPHS = [chain, residual, two_streams]


def pair(name: str) -> list[str]:
    return [
        f"QuantizeLinear({name}) -> {name}_quantized",
        f"DequantizeLinear({name}_quantized) -> {name}_dequantized",
    ]


def conv(source: str, weight: int, output: int, bias: int | None = None) -> str:
    second = "" if bias is None else f", w{bias}_dequantized"
    return f"Conv({source}_dequantized, w{weight}_dequantized{second}) -> conv_{output}"


def test_tensorrt_chain_node_by_node() -> None:
    result = quantize(chain(), calibrate(chain()))
    assert edges(result.model) == [
        *pair("x"),
        conv("x", 0, 0),
        "Relu(conv_0) -> relu_1",
        *pair("relu_1"),
        conv("relu_1", 2, 2),
        "Relu(conv_2) -> relu_3",
        *pair("relu_3"),
        conv("relu_3", 4, 4),
        "AveragePool(conv_4) -> averagepool_5",
        "Reshape(averagepool_5) -> reshape_6",
    ]
    assert result.quantized == ("n0", "n2", "n4")
    assert result.kept == ()
    assert result.tensors == ("x", "relu_1", "relu_3")


def test_cpu_chain_node_by_node() -> None:
    result = quantize(chain(), calibrate(chain()), CPU)
    assert edges(result.model) == [
        *pair("x"),
        conv("x", 0, 0, 1),
        "Relu(conv_0) -> relu_1",
        *pair("relu_1"),
        conv("relu_1", 2, 2, 3),
        "Relu(conv_2) -> relu_3",
        *pair("relu_3"),
        conv("relu_3", 4, 4, 5),
        *pair("conv_4"),
        "AveragePool(conv_4_dequantized) -> averagepool_5",
        "Reshape(averagepool_5) -> reshape_6",
    ]


def test_tensorrt_shortcuts_node_by_node() -> None:
    assert (
        edges(quantize(residual(), calibrate(residual())).model)[4:18]
        == [
            *pair("relu_1"),
            conv("relu_1", 2, 2),
            "Add(conv_2, relu_1_dequantized) -> add_3",  # the shortcut through the pair, the convolution straight
            "Relu(add_3) -> relu_4",
            *pair("relu_4"),
            conv("relu_4", 4, 5),
            conv("relu_4", 6, 6),
            *pair("conv_6"),  # of two convolutions the smaller one is the shortcut
            "Add(conv_5, conv_6_dequantized) -> add_7",
            "Relu(add_7) -> relu_8",
            *pair("relu_8")[:1],
        ]
    )


def test_cpu_shortcuts_node_by_node() -> None:
    lines = edges(quantize(residual(), calibrate(residual()), CPU).model)
    assert [line for line in lines if line.startswith("Add")] == [
        "Add(conv_2_dequantized, relu_1_dequantized) -> add_3",
        "Add(conv_5_dequantized, conv_6_dequantized) -> add_7",
    ]
    assert sum(line.startswith("Quantize") for line in lines) == 8  # x, relu_1, conv_2, relu_4, conv_5, 6, relu_8, 9


def test_tensorrt_unfolded_block_node_by_node() -> None:
    lines = edges(quantize(two_streams(), calibrate(two_streams())).model)
    assert [line for line in lines if line.startswith(("Add", "Batch", "Relu", "Concat"))] == [
        "Relu(conv_0) -> relu_1",
        "Relu(conv_2) -> relu_3",
        "Add(conv_6, relu_1_dequantized) -> add_8",  # one pair for the two convolutions and the Add
        "Add(add_8, conv_5) -> add_9",
        "BatchNormalization(add_9) -> batchnormalization_10",  # float, and what enters it too
        "Relu(batchnormalization_10) -> relu_11",
        "Add(conv_7, conv_4) -> add_12",
        "BatchNormalization(add_12) -> batchnormalization_13",
        "Relu(batchnormalization_13) -> relu_14",
        "Concat(relu_11, relu_14) -> concat_15",
    ]
    names = [line.split("(")[1].split(")")[0] for line in lines if line.startswith("Quantize")]
    assert names == ["x", "relu_1", "relu_3", "concat_15"]


def test_an_add_between_shortcuts_gets_pairs_on_all_operands() -> None:
    w = writer()
    a = w.relu(w.conv(w.input(3), 8))
    model = end(w, w.relu(w.add(w.relu(w.conv(a, 8)), w.op("Sigmoid", [a], 8), a)), size=8)
    result = quantize(model, calibrate(model))
    # relu_3 + sigmoid_4 = add_5; add_5 + relu_1 = add_6; relu_7 is int8, so all that is added up is
    assert set(result.tensors) == {"x", "relu_1", "relu_3", "sigmoid_4", "add_5", "relu_7"}


def test_a_convolution_with_another_reader_does_not_take_the_add_along() -> None:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    y = w.conv(x, 8)
    model = w.model(w.op("Sigmoid", [y], 8), w.conv(w.relu(w.add(y, x)), 8))
    assert "Add(conv_2_dequantized, relu_1_dequantized) -> add_4" in edges(quantize(model, calibrate(model)).model)


def test_products_with_a_shortcut_and_a_bias() -> None:
    w = writer()
    x = w.op("Flatten", [w.op("GlobalAveragePool", [w.relu(w.conv(w.input(3), 8))], 8)], 8)
    square, bias = w.constant(w.rng.standard_normal((8, 8))), w.constant(w.rng.standard_normal(8))
    summed = w.add(w.op("MatMul", [x, square], 8), x)
    biased = w.op("Add", [w.op("MatMul", [summed, square], 8), bias], 8)
    model = w.model(w.op("MatMul", [biased, square], 8))
    for options, first in ((QuantizeOptions(), "matmul_4"), (CPU, "matmul_4_dequantized")):
        lines = edges(quantize(model, calibrate(model), options).model)
        assert f"Add({first}, flatten_3_dequantized) -> add_5" in lines
        # A bias is no shortcut: nothing before it in either flavour.
        assert sum(line.endswith("-> add_7") and line.startswith("Gemm(add_5") for line in lines) == 1


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize(
    "options", [QuantizeOptions(), CPU, QuantizeOptions("cpu", reduced_range=True)], ids=["tensorrt", "cpu", "reduced"]
)
def test_every_number_and_the_function(make, options: QuantizeOptions) -> None:  # type: ignore[no-untyped-def]
    model, table = make(), calibrate(make())
    before = ir.to_proto(model).SerializeToString()
    result = quantize(model, table, options)
    assert ir.to_proto(model).SerializeToString() == before
    limit = 64 if options.reduced_range else 127
    seen = audit(make(), result.model, table, options.flavour, limit)
    biases = sum(len(node.inputs) == 3 for node in model.graph if node.op_type == "Conv")
    expected = len(result.tensors) + len(result.quantized) + (biases if options.flavour == "cpu" else 0)
    assert seen == expected
    batch = np.concatenate(batches())
    assert sqnr_db(run(model, batch), run(result.model, batch)) > (33 if options.reduced_range else 38)
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


@pytest.mark.parametrize("options", [QuantizeOptions(), CPU, QuantizeOptions(rest="fp16")])
def test_same_table_same_bytes(options: QuantizeOptions) -> None:
    table = calibrate(two_streams())
    again = RangeTable.from_json(table.to_json())
    first, second = (quantize(two_streams(), t, options).model for t in (table, again))
    assert ir.to_proto(first).SerializeToString() == ir.to_proto(second).SerializeToString()


# --- injected faults: the audit, and with it this file, must notice ------------------------------------------------


def faulty(fault: str, flavour: str) -> ir.Model:
    options = QuantizeOptions(flavour)  # type: ignore[arg-type]
    model = quantize(chain(), calibrate(chain()), options).model
    values = model.graph.initializers
    if fault == "zero point":
        values["relu_1_zero_point"].const_value = ir.tensor(array(values["relu_1_zero_point"]) + 1)
    elif fault == "neighbour's scale":
        one, other = values["relu_1_scale"], values["relu_3_scale"]
        one.const_value, other.const_value = other.const_value, one.const_value
    elif fault == "channels shifted":
        values["w2_scale"].const_value = ir.tensor(np.roll(array(values["w2_scale"]), 1))
    elif fault == "one weight":
        stored = array(values["w2_quantized"]).copy()
        stored.flat[5] += 1
        values["w2_quantized"].const_value = ir.tensor(stored)
    elif fault == "neighbour's bias scale":
        values["w3_scale"].const_value = values["w5_scale"].const_value
    return model


FAULTS = ["zero point", "neighbour's scale", "channels shifted", "one weight"]


@pytest.mark.parametrize(
    ("fault", "flavour"), [*itertools.product(FAULTS, ["tensorrt", "cpu"]), ("neighbour's bias scale", "cpu")]
)
def test_injected_faults_are_noticed(fault: str, flavour: str) -> None:
    audit(chain(), faulty("none", flavour), calibrate(chain()), flavour)
    with pytest.raises((AssertionError, ValueError)):
        audit(chain(), faulty(fault, flavour), calibrate(chain()), flavour)


# --- what is asked for, kept and refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^n2$", "conv_2", "w2", "unit7"])
def test_keep_by_node_tensor_weight_or_unfolded_name(pattern: str) -> None:
    model = chain()
    next(n for n in model.graph if n.name == "n2").metadata_props["rir_deploy.members"] = '[["unit7_relu", 0, 16]]'
    result = quantize(model, calibrate(model), QuantizeOptions(keep=(pattern,)))
    assert result.quantized == ("n0", "n4")
    assert [(kept.node, kept.reason) for kept in result.kept] == [("n2", f"asked for by '{pattern}'")]
    assert "Conv(relu_1) -> conv_2" in edges(result.model)
    assert result.tensors == ("x", "relu_3")  # nobody else reads relu_1


def test_kept_node_reads_float_on_tensorrt_and_the_shared_pair_on_cpus() -> None:
    model = residual()
    for flavour, expected in (("tensorrt", "Conv(relu_4) -> conv_6"), ("cpu", "Conv(relu_4_dequantized) -> conv_6")):
        options = QuantizeOptions(flavour, keep=("conv_6",))  # type: ignore[arg-type]
        lines = edges(quantize(model, calibrate(model), options).model)
        assert expected in lines
        assert "Add(conv_5, conv_6) -> add_7" in lines or flavour == "cpu"
        assert "QuantizeLinear(conv_6) -> conv_6_quantized" not in lines


def test_head_that_ends_in_a_convolution_gives_float_scores() -> None:
    w = writer()
    mean = w.op("GlobalAveragePool", [w.relu(w.conv(w.input(3), 8))], 8)
    model = w.model(w.op("Flatten", [w.conv(mean, 5, 1, bias=True)], 5))
    for options in (QuantizeOptions(), CPU):
        lines = edges(quantize(model, calibrate(model), options).model)
        assert lines[-1] == "Flatten(conv_3) -> flatten_4"


def test_two_readers_behind_a_pool_share_the_scale_of_its_input() -> None:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    pooled = w.op("MaxPool", [x], 8, kernel_shape=[2, 2], strides=[2, 2])
    model = w.model(w.op("GlobalAveragePool", [w.conv(pooled, 5)], 5))
    table = calibrate(model)
    changed = RangeTable({**table.ranges, "maxpool_2": Range(0.0, 0.01)}, "minmax", 1, SOURCES)
    values = quantize(model, changed, CPU).model.graph.initializers
    assert array(values["maxpool_2_scale"]) == array(values["relu_1_scale"])
    tensorrt = quantize(model, changed).model.graph.initializers  # relu_1 has no pair here: its own range
    assert array(tensorrt["maxpool_2_scale"]) == np.float32(0.01 / 127)


def odd(kind: str) -> tuple[ir.Model, str]:
    """A model whose second convolution or product cannot be quantised, and why."""
    w = writer()
    x = w.relu(w.conv(w.input(3), 4, bias=True))
    if kind == "weight":
        y = w.op("Conv", [x, w.op("Relu", [w.constant(np.ones((4, 4, 1, 1)))], 4)], 4)
        return w.model(y), "its weight is not a constant"
    if kind == "transposed":
        y = w.op("ConvTranspose", [x, w.constant(w.rng.standard_normal((4, 4, 2, 2)))], 4)
        return w.model(y), "transposed convolutions are not quantised"
    flat = w.op("Flatten", [x], 256)
    weight, bias = w.constant(w.rng.standard_normal((256, 5))), w.constant(w.rng.standard_normal(5))
    if kind == "alpha":
        return w.model(w.op("Gemm", [flat, weight, bias], 5, alpha=0.5)), "it multiplies by 0.5"
    if kind == "transA":
        turned = w.op("Transpose", [flat], 5, perm=[1, 0])
        return w.model(w.op("Gemm", [turned, weight], 5, transA=1)), "its input is transposed"
    if kind == "bias":
        many = w.constant(w.rng.standard_normal((4, 5)))
        return w.model(w.op("Gemm", [flat, weight, many], 5)), "its bias is not one number a channel"
    if kind == "matrix":
        stack = w.constant(w.rng.standard_normal((1, 256, 5)))
        return w.model(w.op("MatMul", [flat, stack], 5)), "its weight is not a matrix"
    product = w.op("Gemm", [flat, weight, w.op("ReduceMax", [flat], 1, keepdims=0)], 5)
    return w.model(product), "its bias is not a constant"


@pytest.mark.parametrize("kind", ["weight", "transposed", "alpha", "transA", "bias", "matrix", "computed bias"])
def test_what_cannot_be_quantised_is_kept_with_its_reason(kind: str) -> None:
    model, reason = odd(kind)
    result = quantize(model, calibrate(model))
    assert result.quantized == ("n0",)
    assert reason in [kept.reason for kept in result.kept]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("options", [QuantizeOptions(), CPU])
def test_products_are_quantised_a_column(options: QuantizeOptions, transposed: int) -> None:
    w = writer()
    mean = w.op("Flatten", [w.op("GlobalAveragePool", [w.relu(w.conv(w.input(3), 8, bias=True))], 8)], 8)
    weight = w.rng.standard_normal((8, 6)) * np.arange(1, 7)
    hidden = w.constant(weight.T if transposed else weight)
    x = w.relu(w.op("Gemm", [mean, hidden, w.constant(w.rng.standard_normal(6))], 6, transB=transposed))
    model = w.model(w.op("MatMul", [x, w.constant(w.rng.standard_normal((6, 5)))], 5))
    table = calibrate(model)
    result = quantize(model, table, options)
    assert len(result.quantized) == 3
    (dequantize,) = [n for n in result.model.graph if n.inputs[0].name == f"{hidden}_quantized"]  # type: ignore
    assert dequantize.attributes["axis"].as_int() == 1 - transposed
    assert np.allclose(array(dequantize.inputs[1]), np.abs(weight).max(axis=0) / 127)
    batch = np.concatenate(batches())
    assert sqnr_db(run(model, batch), run(result.model, batch)) > 36


def test_a_tensor_that_was_always_zero_keeps_its_reader() -> None:
    w = writer()
    x = w.input(3)
    dead = w.relu(w.op("Sub", [w.op("Mul", [x, w.constant(np.zeros(1))], 3), w.constant(np.ones(1))], 3))
    model = w.model(w.op("GlobalAveragePool", [w.add(w.conv(x, 4), w.conv(dead, 4))], 4))
    result = quantize(model, calibrate(model))
    assert [kept.reason for kept in result.kept] == [f"its input '{dead}' was zero in all of the calibration"]


def test_outputs_stay_float_tensors_though_a_node_reads_them_in_int8() -> None:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8))
    model = w.model(x, w.op("GlobalAveragePool", [w.conv(x, 5)], 5))
    for options in (QuantizeOptions(), CPU):
        result = quantize(model, calibrate(model), options)
        assert [value.name for value in result.model.graph.outputs] == ["relu_1", "globalaveragepool_3"]
        assert result.model.graph.outputs[0].dtype == ir.DataType.FLOAT
        assert ops(result.model)["QuantizeLinear"] == len(result.tensors)


def test_names_that_are_taken_are_left_alone() -> None:
    model = chain()
    next(value for node in model.graph for value in node.outputs if value.name == "conv_2").name = "x_quantized"
    result = quantize(model, calibrate(model))
    names = [value.name for node in result.model.graph for value in node.outputs]
    assert len(names) == len(set(names))
    nodes = [node.name for node in result.model.graph]
    assert len(nodes) == len(set(nodes))
    assert "x_quantized_1" in names


def test_refusals() -> None:
    model, table = chain(), calibrate(chain())
    with pytest.raises(InputError, match=r"quantised already .*start from the FP32 model"):
        quantize(quantize(model, table).model, table)
    with pytest.raises(UsageError, match="keep 'layer9' matches no node with weights; their names are like n0, n2"):
        quantize(model, table, QuantizeOptions(keep=("layer9",)))
    with pytest.raises(UsageError, match="--keep leaves nothing to quantise: 'n' match every layer"):
        quantize(model, table, QuantizeOptions(keep=("n",)))
    partial = RangeTable({k: v for k, v in table.ranges.items() if k != "relu_3"}, "minmax", 1, SOURCES)
    with pytest.raises(InputError, match="knows no tensor 'relu_3'"):
        quantize(model, partial)
    w = writer()
    with pytest.raises(InputError, match="it has no Conv, Gemm or MatMul"):
        quantize(w.model(w.relu(w.input(3))), table)
    model.graph.initializers["w2"].const_value = ir.tensor(np.full((16, 8, 3, 3), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="weight 'w2' holds NaN"):
        quantize(model, table)


def test_a_model_in_double_is_kept_with_its_reason() -> None:
    from tests.fold.graphs import Writer

    w = Writer()
    model = w.model(w.conv(w.input(3), 4))
    table = RangeTable({"x": Range(-1, 1), "conv_0": Range(-1, 1)}, "minmax", 1, SOURCES)
    with pytest.raises(InputError, match="it computes in DOUBLE, not FP32"):
        quantize(model, table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavour": "tensort"}, "unknown flavour 'tensort'; did you mean 'tensorrt'"),
        ({"rest": "bf16"}, "unknown type of the rest 'bf16'"),
        ({"reduced_range": True}, "for CPUs without VNNI"),
        ({"flavour": "cpu", "rest": "fp16"}, "CPUs compute the rest"),
        ({"keep": ("(",)}, "not a regular expression"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        QuantizeOptions(**options)  # type: ignore[arg-type]


# --- opset, FP16, uint8 images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opset", "rest", "expected"), [(11, "fp32", 13), (18, "fp16", 19), (20, "fp16", 20)])
def test_opset_is_raised_as_far_as_needed(opset: int, rest: str, expected: int) -> None:
    w = writer(opset=opset)
    model = end(w, w.relu(w.bn(w.conv(w.input(3), 8))), size=8)
    result = quantize(model, calibrate(model), QuantizeOptions(rest=rest))  # type: ignore[arg-type]
    assert result.model.graph.opset_imports[""] == expected
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


def test_opset_is_not_raised_over_an_operator_that_changed() -> None:
    w = writer(opset=17)
    mean = w.op("ReduceMean", [w.conv(w.input(3), 8)], 8, axes=[2, 3])
    model = w.model(mean)
    with pytest.raises(InputError, match=r"'n1' is a ReduceMean of opset 17.*opset 19 or newer"):
        quantize(model, calibrate(model), QuantizeOptions(rest="fp16"))
    assert quantize(model, calibrate(model)).quantized == ("n0",)


def test_rest_in_fp16_has_fp16_scales_and_the_same_integers() -> None:
    model, table = two_streams(), calibrate(two_streams())
    half, full = (quantize(model, table, QuantizeOptions(rest=rest)) for rest in ("fp16", "fp32"))  # type: ignore
    assert half.kept == ()
    types = {
        str(value.dtype) for node in half.model.graph for value in node.outputs if node.op_type not in ("Cast", "Shape")
    }
    assert types == {"FLOAT16", "INT8"}
    for name, value in full.model.graph.initializers.items():
        other = array(half.model.graph.initializers[name])
        if name.endswith("_quantized"):  # a scale rounded up by less than 2**-10 moves few of them, by one step
            difference = np.abs(other.astype(int) - array(value).astype(int))
            assert difference.max() <= 1
        elif name.endswith("_scale"):
            assert other.dtype == np.float16
            assert (other >= array(value)).all()
    assert ops(half.model) == ops(full.model) + type(ops(full.model))({"Cast": 2})


def test_fp16_rest_keeps_what_overflows_in_fp32() -> None:
    model, table = chain(), calibrate(chain())
    large = RangeTable({**table.ranges, "conv_2": Range(-7e4, 1.0)}, "minmax", 1, SOURCES)
    result = quantize(model, large, QuantizeOptions(rest="fp16"))
    reasons = {kept.node: kept.reason for kept in result.kept}
    assert reasons["n2"] == "its output 'conv_2' reaches 7e+04, over FP16's 65504"
    assert reasons["n3"] == "its input 'conv_2' reaches 7e+04, over FP16's 65504"
    assert reasons["w2_dequantized/DequantizeLinear"] == "all its readers stay FP32"  # no Cast between DQ and Conv
    assert "Conv(relu_1_dequantized, w2_dequantized) -> conv_2" in edges(result.model)


def test_fp16_rest_knows_that_a_pair_gives_what_it_was_given() -> None:
    model, table = chain(), calibrate(chain())
    large = RangeTable({**table.ranges, "relu_1": Range(0.0, 7e4)}, "minmax", 1, SOURCES)
    kept = {entry.node for entry in quantize(model, large, QuantizeOptions(rest="fp16")).kept}
    assert {"n1", "relu_1_quantized/QuantizeLinear", "relu_1_dequantized/DequantizeLinear", "n2"} <= kept


def test_uint8_images_with_the_preprocessing_inside() -> None:
    w = writer()
    w.inputs.append(onnx.helper.make_tensor_value_info("u8", onnx.TensorProto.UINT8, ["batch", 8, 8, 3]))
    w.channels["u8"] = 3
    pixels = w.op("Transpose", [w.op("Cast", ["u8"], 3, to=onnx.TensorProto.FLOAT)], 3, perm=[0, 3, 1, 2])
    model = end(w, w.relu(w.conv(pixels, 8, bias=True)), size=8)
    data = [np.random.default_rng(i).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8) for i in range(3)]
    table = calibrate(model, data)  # type: ignore[arg-type]
    assert (table["u8"].min, table["u8"].max) == (0, 255)
    for options in (QuantizeOptions(), CPU):
        result = quantize(model, table, options)
        assert [node.op_type for node in itertools.islice(result.model.graph, 4)] == [
            *("Cast", "Transpose", "QuantizeLinear", "DequantizeLinear")
        ]
        assert sqnr_db(run(model, data[0]), run(result.model, data[0])) > 36
    values = quantize(model, table, CPU).model.graph.initializers
    assert (array(values["transpose_1_scale"]), array(values["transpose_1_zero_point"])) == (1.0, 0)  # exact


def test_activation_names_are_those_quantize_asks_for() -> None:
    model = two_streams()
    names = set(activation_names(model))
    assert {"relu_1", "concat_15", "conv_16"} <= names
    assert "x" not in names
