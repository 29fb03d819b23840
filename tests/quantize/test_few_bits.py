"""Weights of 4 and 3 bits: stored as such, loaded as int8, and exactly what they were rounded to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from rir_deploy.errors import InputError, UsageError
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.quantize import QuantizeOptions, Tuned, TuneOptions, quantize
from tests.fold.graphs import Writer
from tests.quantize.graphs import batches, run, session, sqnr_db, writer
from tests.quantize.tuning import CPU, TENSORRT, tuned

REDUCED = QuantizeOptions("cpu", reduced_range=True)


def block(w: Writer, x: str, rows: int, **attributes: object) -> str:
    """A convolution as a fold leaves it: small weights, and an identity in the centre."""
    name = w.conv(x, rows, bias=True, **attributes)
    weight = next(tensor for tensor in w.weights if tensor.name == w.nodes[-1].input[1])
    array = numpy_helper.to_array(weight).copy() * 0.3
    for row in range(rows):
        array[row, row % array.shape[1], 1, 1] += 1.0 + 0.3 * w.rng.random()
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    return w.relu(name)


def network(channels: int = 8, head: str = "conv") -> ir.Model:
    """Dense, dense, grouped, dense; then a convolution, or two products."""
    w = writer()
    x = block(w, w.input(3), channels)
    for attributes in ({}, {"group": 2}, {"strides": [2, 2]}):
        x = block(w, x, channels, **attributes)
    if head == "conv":
        return w.model(w.op("GlobalAveragePool", [w.conv(x, 5, 1, bias=True)], 5))
    x = w.op("Flatten", [w.op("GlobalAveragePool", [x], channels)], channels)
    weights = [w.constant(w.rng.standard_normal(shape)) for shape in ((channels, 6), (6, 7), (7, 5))]
    x = w.relu(w.op("MatMul", [x, weights[0]], 6))
    x = w.relu(w.op("Gemm", [x, weights[1], w.constant(w.rng.standard_normal(7))], 7))
    return w.model(w.op("MatMul", [x, weights[2]], 5))


def narrow(model: ir.Model, bits: int = 4, options: QuantizeOptions = CPU) -> tuple[Tuned, ir.Model]:
    found = tuned(model, TuneOptions("minmax", bits=bits), options)
    return found, quantize(model, found.table, options, found.rounded).model


def optimized(model: ir.Model, folder: Path) -> Counter[str]:
    session(model, str(folder / "optimized.onnx"))
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("head", ["conv", "products"])
def test_the_file_holds_four_bits_a_weight(head: str, bits: int, tmp_path: Path) -> None:
    model = network(head=head)
    found, small = narrow(model, bits)
    save_onnx(small, tmp_path / "small.onnx", force=False)
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
    proto = onnx.load(tmp_path / "small.onnx")
    assert next(one.version for one in proto.opset_import if one.domain == "") == 21
    assert proto.ir_version >= 10  # the first that knows INT4
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    fours = [tensor for tensor in stored.values() if tensor.data_type == TensorProto.INT4]
    inner = list(found.rounded.values())[1:-1]
    assert len(fours) == len(inner)
    first = next(t for t in stored.values() if t.data_type == TensorProto.INT8 and len(t.dims) == 4)
    assert tuple(first.dims) == (8, 3, 3, 3)  # the first layer keeps 8
    assert sorted(int(np.prod(tensor.dims)) for tensor in fours) == sorted(one.integers.size for one in inner)
    assert all(len(tensor.raw_data) == -(-int(np.prod(tensor.dims)) // 2) for tensor in fours)
    for tensor in fours:
        values = numpy_helper.to_array(tensor).astype(np.int64)
        assert values.min() >= -(2 ** (bits - 1))
        assert values.max() <= 2 ** (bits - 1) - 1
        assert len(np.unique(values)) > 2 ** (bits - 1)


@pytest.mark.parametrize("head", ["conv", "products"])
def test_onnxruntime_puts_them_together_at_load(head: str, tmp_path: Path) -> None:
    _, small = narrow(network(head=head))
    found = optimized(small, tmp_path)
    assert found["QLinearConv"] == (5 if head == "conv" else 4)
    assert found["Conv"] == found["FusedConv"] == found["Gemm"] == found["MatMul"] == 0
    assert not found.keys() & {"Cast", "ScatterElements", "Reshape"}
    plain = optimized(narrow(network(head=head), 8)[1], tmp_path)
    assert found == plain  # node for node the graph of 8 bits


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("head", ["conv", "products"])
def test_it_computes_what_int8_weights_put_together_by_hand_do(head: str, bits: int, optimize: bool) -> None:
    import onnxruntime as ort

    model = network(head=head)
    found, small = narrow(model, bits)
    whole = {name: replace(weight, wide=None) for name, weight in found.rounded.items()}
    by_hand = quantize(model, found.table, CPU, whole).model
    assert not any(value.dtype == ir.DataType.INT4 for value in by_hand.graph.initializers.values())
    batch = np.concatenate(batches())
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    one, other = (
        ort.InferenceSession(ir.to_proto(m).SerializeToString(), options, ["CPUExecutionProvider"]).run(
            None, {"x": batch}
        )[0]
        for m in (small, by_hand)
    )
    assert np.array_equal(one, other)
    assert sqnr_db(run(model, batch), one) > (15 if bits == 4 else 9)


def test_the_identity_costs_the_others_nothing_and_stays_as_it_was() -> None:
    """Bits are for what is small: the tap that is not is an integer of the row's own step."""
    model = network()
    found, _ = narrow(model)
    for weight, node in zip(found.rounded.values(), [n for n in model.graph if n.op_type == "Conv"], strict=True):
        if weight.wide is None:
            continue
        true = node.inputs[1].const_value.numpy().reshape(len(weight.scale), -1)  # type: ignore[union-attr]
        rows = np.arange(len(true))
        integers = weight.integers.reshape(true.shape)
        assert np.array_equal(weight.wide, np.abs(true).argmax(axis=1))
        assert np.allclose(integers[rows, weight.wide] * weight.scale, true[rows, weight.wide], rtol=0.02)
        assert np.abs(integers[rows, weight.wide]).max() > 7
        others = integers.copy()
        others[rows, weight.wide] = 0
        assert others.min() >= -8
        assert others.max() <= 7


def test_plain_rounding_to_four_bits_would_be_far_worse() -> None:
    """What the wide column is for: without it the identity sets the step."""
    model = network()
    found, small = narrow(model)
    batch = np.concatenate(batches())
    reference = run(model, batch)
    coarse = {}
    for name, weight in found.rounded.items():
        if weight.wide is not None:
            true = next(n for n in model.graph if n.outputs[0].name == name).inputs[1].const_value.numpy()  # type: ignore[union-attr]
            scale = (np.abs(true).reshape(len(true), -1).max(axis=1) / 7).astype(np.float32)
            integers = np.rint(true / scale[:, None, None, None]).astype(np.int8)
            weight = replace(weight, integers=integers, scale=scale, wide=None)
        coarse[name] = weight
    plain = quantize(model, found.table, CPU, coarse).model
    assert sqnr_db(reference, run(small, batch)) > sqnr_db(reference, run(plain, batch)) + 6


def test_reduced_range_holds_for_the_wide_column_too() -> None:
    found, _ = narrow(network(), options=REDUCED)
    assert all(np.abs(weight.integers.astype(int)).max() <= 64 for weight in found.rounded.values())
    assert any(weight.wide is not None for weight in found.rounded.values())


def test_the_file_is_a_fraction(tmp_path: Path) -> None:
    """Of a network large enough that weights are what counts."""
    model = network(channels=64)
    sizes = {}
    for bits in (8, 4):
        save_onnx(narrow(model, bits)[1], tmp_path / f"{bits}.onnx", force=False)
        sizes[bits] = (tmp_path / f"{bits}.onnx").stat().st_size
    save_onnx(model, tmp_path / "32.onnx", force=False)
    assert sizes[4] < 0.2 * (tmp_path / "32.onnx").stat().st_size
    assert sizes[4] < 0.65 * sizes[8]


def test_it_survives_being_written_and_read(tmp_path: Path) -> None:
    _, small = narrow(network())
    save_onnx(small, tmp_path / "small.onnx", force=False)
    again = load_onnx(tmp_path / "small.onnx")
    assert ir.to_proto(again).SerializeToString(deterministic=True) == ir.to_proto(small).SerializeToString(
        deterministic=True
    )


def test_tensorrt_is_refused() -> None:
    with pytest.raises(UsageError, match="4 bits"):
        tuned(network(), TuneOptions(bits=4), TENSORRT)


@pytest.mark.parametrize("bits", [2, 5, 16])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match="8, 4 or 3 bits"):
        TuneOptions(bits=bits)


FAULTS = {
    "shape": lambda w: replace(w, integers=w.integers[:-1]),
    "transposed": lambda w: replace(w, integers=w.integers.T),
    "scale": lambda w: replace(w, scale=w.scale[:-1]),
    "zero step": lambda w: replace(w, scale=w.scale * 0),
    "step is none": lambda w: replace(w, scale=w.scale * np.float32("nan")),
    "bias": lambda w: replace(w, bias=w.bias[:2]),
    "bias is none": lambda w: replace(w, bias=w.bias * np.float32("inf")),
    "column": lambda w: replace(w, wide=w.wide + 1000),
    "negative column": lambda w: replace(w, wide=w.wide - 1000),
    "columns": lambda w: replace(w, wide=w.wide[:-1]),
    "more than four bits": lambda w: replace(w, wide=(w.wide + 1) % 8),
    "over the range": lambda w: replace(w, integers=np.full_like(w.integers, -128), wide=None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_are_not_the_layers_are_refused(fault: str) -> None:
    model = network()
    found, _ = narrow(model)
    name = list(found.rounded)[1]
    rounded = {**found.rounded, name: FAULTS[fault](found.rounded[name])}
    with pytest.raises(InputError, match=r"not those of the layer 'n2'; calibrate again"):
        quantize(model, found.table, CPU, rounded)


def bits_of(model: ir.Model, options: QuantizeOptions = CPU) -> dict[str, int]:
    found = tuned(model, TuneOptions("minmax", bits=4, equalize=False), options)
    return {name: 8 if weight.wide is None else 4 for name, weight in found.rounded.items()}


def test_every_layer_that_reads_the_image_keeps_8_bits() -> None:
    """An unfolded network has two stems, and neither is the first."""
    w = writer()
    x = w.input(3)
    left, right = w.relu(w.conv(x, 8)), w.relu(w.conv(x, 8))
    y = w.relu(w.add(w.conv(left, 8), w.conv(right, 8)))
    assert list(bits_of(w.model(w.op("GlobalAveragePool", [w.conv(y, 5, 1)], 5))).values()) == [8, 8, 4, 4, 8]


def test_every_layer_that_gives_an_output_keeps_8_bits() -> None:
    w = writer()
    x = w.relu(w.conv(w.relu(w.conv(w.input(3), 8)), 8))
    ends = w.add(w.conv(x, 5), w.conv(x, 5, 1))
    assert list(bits_of(w.model(ends, w.conv(x, 4))).values()) == [8, 4, 8, 8, 8]


def test_the_layer_before_a_head_that_is_kept_in_float_is_no_end() -> None:
    model = network()
    assert list(bits_of(model).values()) == [8, 4, 4, 4, 8]
    head = [node for node in model.graph if node.op_type == "Conv"][-1].name
    assert list(bits_of(model, replace(CPU, keep=(f"^{head}$",))).values()) == [8, 4, 4, 4]
