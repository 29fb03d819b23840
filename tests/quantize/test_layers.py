"""Layers as matrices: patches against torch, moments against numpy, rounded layers against what they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from rir_deploy.quantize import QuantizeOptions, TuneOptions, quantize
from rir_deploy.quantize.moments import MomentObserver, Moments, ShiftObserver
from rir_deploy.quantize.patches import as_rows, from_rows, groups_of, patches
from rir_deploy.quantize.quantize import canonical
from rir_deploy.quantize.round_layers import round_layers
from rir_deploy.quantize.rounding import Bounds, choose_second_order
from rir_deploy.quantize.scales import Affine, asymmetric_uint8
from rir_deploy.quantize.select import Weighted, select
from rir_deploy.quantize.table import Range, RangeTable
from rir_deploy.quantize.weights import Rounding
from tests.quantize.graphs import SOURCES, batches, run, sqnr_db, writer
from tests.quantize.tuning import tuned

Floats = NDArray[np.floating]
CPU = QuantizeOptions("cpu")


def layer(model: ir.Model, name: str = "x") -> Weighted:
    """The one layer of a model."""
    table = RangeTable({name: Range(-4.0, 4.0)}, "minmax", 1, SOURCES)
    (found,) = select(canonical(model).graph, table, ()).nodes
    return found


def convolution(
    rows: int = 4, channels: int = 6, size: tuple[int, ...] = (9, 8), k: int = 3, **attributes: object
) -> ir.Model:
    w = writer()
    return w.model(w.conv(w.input(channels, size), rows, k, bias=True, **attributes))


def product(kind: str) -> ir.Model:
    w = writer()
    x = w.input(6, ())
    weight = w.constant(w.rng.standard_normal((5, 6) if kind == "gemm_t" else (6, 5)))
    bias = w.constant(w.rng.standard_normal(5))
    if kind == "matmul":
        return w.model(w.op("MatMul", [x, weight], 5))
    return w.model(w.op("Gemm", [x, weight, bias], 5, **({"transB": 1} if kind == "gemm_t" else {})))


def many_rows() -> ir.Model:
    """A matrix applied to every pixel: [N, pixels, channels] times [channels, rows]."""
    w = writer()
    x = w.op("Transpose", [w.op("Reshape", [w.input(6), w.constant(np.array([0, 6, -1]))], 6)], 64, perm=[0, 2, 1])
    return w.model(w.op("MatMul", [x, w.constant(w.rng.standard_normal((6, 5)))], 5))


ATTRIBUTES: dict[str, dict[str, object]] = {
    "plain": {},
    "no padding": {"pads": [0] * 4},
    "strides": {"strides": [2, 3]},
    "dilations": {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    "all": {"strides": [2, 1], "dilations": [1, 2], "pads": [3, 0, 1, 2]},
    "groups": {"group": 2},
    "depthwise": {"group": 6, "rows": 6},
    "grouped rows": {"group": 3, "rows": 9, "strides": [2, 2]},
}
AUTO: dict[str, dict[str, object]] = {
    f"{pad} {strides} {dilations}": {"auto_pad": pad, "strides": strides, "dilations": dilations}
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    for strides in ([1, 1], [2, 3])
    for dilations in ([1, 1], [2, 1])
    if pad == "VALID" or dilations == [1, 1]
}


def bias_of(found: Weighted) -> Floats | float:
    return 0.0 if found.bias_array is None else found.bias_array.astype(np.float64)


def multiplied(found: Weighted, x: Floats) -> Floats:
    """The layer's output by its patches: [N, rows, positions]."""
    columns = patches(found, x)
    rows = as_rows(found, found.weight_array).reshape(groups_of(found), -1, columns.shape[-1])
    outputs = np.einsum("grc,gpc->pgr", rows, columns.astype(np.float64)).reshape(columns.shape[1], -1)
    return (outputs + bias_of(found)).reshape(len(x), -1, outputs.shape[-1]).transpose(0, 2, 1)


@pytest.mark.parametrize("name", [*ATTRIBUTES, *AUTO])
def test_rows_times_patches_are_what_the_runtime_computes(name: str) -> None:
    attributes = {**ATTRIBUTES, **AUTO}[name]
    model = convolution(**attributes)  # type: ignore[arg-type]
    x = np.random.default_rng(3).standard_normal((2, 6, 9, 8)).astype(np.float32)
    expected = run(model, x)
    assert np.allclose(multiplied(layer(model), x), expected.reshape(*expected.shape[:2], -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gemm", "gemm_t", "matmul"])
def test_products_too(kind: str) -> None:
    model = product(kind)
    x = np.random.default_rng(3).standard_normal((7, 6)).astype(np.float32)
    assert np.allclose(multiplied(layer(model), x)[:, :, 0], run(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_patches_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = layer(convolution(**ATTRIBUTES[name]))  # type: ignore[arg-type]
    x = np.random.default_rng(3).standard_normal((2, 6, 9, 8)).astype(np.float32)
    top, left, bottom, right = ATTRIBUTES[name].get("pads", [1] * 4)  # type: ignore[misc]
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    strides, dilations = (ATTRIBUTES[name].get(key, [1, 1]) for key in ("strides", "dilations"))
    unfolded = torch.nn.functional.unfold(padded, 3, dilation=dilations, stride=strides).numpy()
    expected = unfolded.reshape(2, groups_of(found), -1, unfolded.shape[-1]).transpose(1, 0, 3, 2)
    assert np.array_equal(patches(found, x), expected.reshape(groups_of(found), -1, expected.shape[-1]))


@pytest.mark.parametrize("make", [lambda: convolution(group=2), lambda: product("gemm_t"), lambda: product("matmul")])
def test_rows_and_back(make: Callable[[], ir.Model]) -> None:
    found = layer(make())
    rows = as_rows(found, found.weight_array)
    assert len(rows) == found.weight_array.shape[found.axis]
    assert np.array_equal(from_rows(found, rows.astype(np.float32)), found.weight_array)


def test_some_positions_are_the_same_for_every_image_and_others_for_another_seed() -> None:
    found = layer(convolution())
    x = np.repeat(np.random.default_rng(3).standard_normal((1, 6, 9, 8)).astype(np.float32), 2, axis=0)
    some = patches(found, x, 10, (1, 2))
    assert some.shape == (1, 20, 54)
    assert np.array_equal(some[0, :10], some[0, 10:])
    everything = {row.tobytes() for row in patches(found, x)[0]}
    assert {row.tobytes() for row in some[0]} <= everything
    assert len({row.tobytes() for row in some[0]}) == 10
    assert np.array_equal(some, patches(found, x, 10, (1, 2)))
    assert not np.array_equal(some, patches(found, x, 10, (1, 3)))


# --- moments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "groups", "all"])
def test_moments_are_those_of_numpy(name: str) -> None:
    found = layer(convolution(**ATTRIBUTES[name]))  # type: ignore[arg-type]
    observer, data = MomentObserver([found]), [batch[:, [0, 1, 2, 0, 1, 2]] for batch in batches(3)]
    for batch in data:
        observer.add({"x": batch})
    (moments,) = observer.moments().values()
    columns = patches(found, np.concatenate(data)).astype(np.float64)
    for group, rows in enumerate(columns):
        assert np.allclose(moments.mean[group], rows.mean(axis=0), atol=1e-6)
        assert np.allclose(moments.covariance[group], np.cov(rows.T, bias=True), atol=1e-5)


def test_shifts_are_the_means_of_the_rounding_errors() -> None:
    data = [batch + 0.3 for batch in batches(3)]
    w = writer()
    model = canonical(w.model(w.conv(w.input(3), 4), w.conv("x", 4, 1)))
    layers = select(model.graph, RangeTable({"x": Range(-4, 4)}, "minmax", 1, SOURCES), ()).nodes
    affine = asymmetric_uint8(-1.0, 2.0)
    observer = ShiftObserver(layers, {"x": affine})
    for batch in data:
        observer.add({"x": batch})
    whole = np.concatenate(data)
    expected = (affine.dequantize(affine.quantize(whole)).astype(np.float64) - whole).mean(axis=(0, 2, 3))
    assert np.abs(expected).max() > 1e-3  # it saturates
    for shift in observer.shifts().values():
        assert np.allclose(shift, expected, atol=1e-7)
    assert len(observer.shifts()) == 2


def test_the_channels_of_a_product_are_its_last_axis() -> None:
    found = layer(many_rows(), "transpose_1")
    x = np.random.default_rng(0).standard_normal((2, 64, 6)).astype(np.float32)
    affine = asymmetric_uint8(-0.5, 0.5)
    observer = ShiftObserver([found], {"transpose_1": affine})
    observer.add({"transpose_1": x})
    (shift,) = observer.shifts().values()
    assert np.allclose(shift, (affine.dequantize(affine.quantize(x)) - x).mean(axis=(0, 1)), atol=1e-6)


# --- rounded layers -------------------------------------------------------------------------------------------------


def observe(found: Weighted, affine: Affine, data: list[Floats]) -> tuple[Moments, Floats]:
    name = str(found.x.name)
    moments, shifts = MomentObserver([found]), ShiftObserver([found], {name: affine})
    for batch in data:
        moments.add({name: batch})
        shifts.add({name: batch})
    return next(iter(moments.moments().values())), next(iter(shifts.shifts().values()))


def rounded(found: Weighted, affine: Affine, moments: Moments, rounding: Rounding, bits: int = 8):  # type: ignore[no-untyped-def]
    name = str(found.node.outputs[0].name)
    return round_layers([(found, affine, bits)], {name: moments}, rounding, CPU)[name]


def outputs(found: Weighted, integers: Floats, scale: Floats, bias: Floats | float, x: Floats) -> Floats:
    """Of a layer with other weights, on patches: [positions, rows]."""
    columns = patches(found, x).astype(np.float64)
    rows = (as_rows(found, integers) * np.asarray(scale, np.float64)[:, None]).reshape(
        groups_of(found), -1, columns.shape[-1]
    )
    return np.einsum("grc,gpc->pgr", rows, columns).reshape(columns.shape[1], -1) + bias


@pytest.mark.parametrize("group", [1, 2])
def test_each_group_of_a_convolution_is_rounded_by_its_own_inputs(group: int) -> None:
    found = layer(convolution(group=group))
    data = [
        np.repeat(batch, 2, axis=1) * np.array([1, 1, 1, 9, 9, 9], np.float32)[:, None, None] for batch in batches(3)
    ]
    affine = asymmetric_uint8(-30, 30)
    moments, _ = observe(found, affine, data)
    weight = rounded(found, affine, moments, "gptq").weight
    rows = as_rows(found, found.weight_array)
    per_group = len(rows) // group
    for index in range(group):
        part = slice(index * per_group, (index + 1) * per_group)
        largest = np.abs(rows[part]).max(axis=1) / 127
        tried = [(largest * share).astype(np.float32) for share in np.linspace(1.0, 0.8, 5)]
        bounds = Bounds.uniform(rows[part].shape, 127)
        expected, steps = choose_second_order(rows[part], tried, bounds, moments.covariance[index])
        assert np.array_equal(as_rows(found, weight.integers)[part], expected)
        assert np.allclose(weight.scale[part], steps, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4, 3])
@pytest.mark.parametrize("group", [1, 3])
def test_second_order_beats_squared_error_beats_nearest(group: int, bits: int) -> None:
    found = layer(convolution(rows=12, group=group))
    rng = np.random.default_rng(5)
    mix = rng.standard_normal((6, 6))
    data = [
        np.einsum("dc,nchw->ndhw", mix, np.maximum(np.repeat(batch, 2, axis=1), 0)).astype(np.float32)
        for batch in batches()
    ]
    affine = asymmetric_uint8(-9, 9)
    moments, _ = observe(found, affine, data)
    whole, damage = np.concatenate(data), {}
    true = outputs(found, found.weight_array, np.ones(12), 0.0, whole)
    for rounding in ("gptq", "mse", "nearest"):
        weight = rounded(found, affine, moments, rounding, bits).weight  # type: ignore[arg-type]
        error = outputs(found, weight.integers, weight.scale, 0.0, whole) - true
        damage[rounding] = float(error.var(axis=0).sum())
    assert damage["gptq"] < (0.9 if group == 1 else 1.0) * damage["mse"]  # two channels know little of one another
    assert damage["mse"] <= damage["nearest"]


@pytest.mark.parametrize(
    "make", [lambda: convolution(k=1, group=2), lambda: product("gemm"), lambda: product("gemm_t")]
)
def test_corrected_biases_make_the_means_agree(make: Callable[[], ir.Model]) -> None:
    """Exactly, where every pixel of a channel is multiplied by every weight."""
    found = layer(make())
    rng = np.random.default_rng(5)
    shape = (8, 6, 5, 5) if found.node.op_type == "Conv" else (64, 6)
    data = [(np.maximum(rng.standard_normal(shape), 0) * 2).astype(np.float32) for _ in range(3)]
    affine = asymmetric_uint8(0.0, 1.5)  # so that much is cut off
    moments, shift = observe(found, affine, data)
    waiting = rounded(found, affine, moments, "nearest", 3)
    whole = np.concatenate(data)
    seen = affine.dequantize(affine.quantize(whole))
    true = outputs(
        found, found.weight_array, np.ones(100)[: len(as_rows(found, found.weight_array))], bias_of(found), whole
    )
    plain, corrected = waiting.finish(None), waiting.finish(shift)
    before, after = (
        outputs(found, w.integers, w.scale, 0.0 if w.bias is None else w.bias, seen).mean(axis=0)
        for w in (plain, corrected)
    )
    assert np.abs(before - true.mean(axis=0)).max() > 0.05
    assert np.allclose(after, true.mean(axis=0), atol=1e-5)


def test_corrected_biases_of_a_padded_convolution_do_too() -> None:
    """The zeros around an image do not move: a tap that often meets them counts for less. Images of one colour tell."""
    found = layer(convolution(pads=[2, 1, 0, 1], strides=[2, 1]))
    colours = np.abs(np.random.default_rng(5).standard_normal((40, 6, 1, 1))) * 2
    data = [np.broadcast_to(colours, (40, 6, 9, 8)).astype(np.float32)]
    affine = asymmetric_uint8(0.0, 1.5)
    moments, shift = observe(found, affine, data)
    waiting = rounded(found, affine, moments, "nearest", 4)
    seen = affine.dequantize(affine.quantize(data[0]))
    true = outputs(found, found.weight_array, np.ones(4), bias_of(found), data[0]).mean(axis=0)
    before, after = (
        outputs(found, weight.integers, weight.scale, weight.bias, seen).mean(axis=0) - true
        for weight in (waiting.finish(None), waiting.finish(shift))
    )
    assert np.abs(before).max() > 0.05
    assert np.abs(after).max() < 1e-4


@pytest.mark.parametrize("flavour", ["cpu", "tensorrt"])
@pytest.mark.parametrize("kind", ["conv", "matmul"])
def test_a_convolution_without_a_bias_gets_the_correction_as_one_and_a_matmul_has_none(kind: str, flavour: str) -> None:
    w = writer()
    x = w.relu(w.conv(w.input(3), 6))
    if kind == "matmul":
        x = w.op("Flatten", [w.op("GlobalAveragePool", [x], 6)], 6)
        model = w.model(w.op("MatMul", [x, w.constant(w.rng.standard_normal((6, 5)))], 5))
    else:
        model = w.model(w.conv(x, 5))
    options = QuantizeOptions(flavour)  # type: ignore[arg-type]
    found = tuned(model, quantization=options)
    biases = [weight.bias is not None for weight in found.rounded.values()]
    assert biases == [True, kind == "conv"]
    result = quantize(model, found.table, options, found.rounded).model
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    batch = np.concatenate(batches())
    assert sqnr_db(run(model, batch), run(result, batch)) > 30


def test_many_rows_times_a_matrix_are_calibrated() -> None:
    found = tuned(many_rows(), fit=[np.repeat(batch, 2, axis=1) for batch in batches()])
    result = quantize(many_rows(), found.table, CPU, found.rounded).model
    batch = np.repeat(np.concatenate(batches()), 2, axis=1)
    assert sqnr_db(run(many_rows(), batch), run(result, batch)) > 30


# --- what the mean of the inputs costs ------------------------------------------------------------------------------


def head(kind: str) -> ir.Model:
    """A product behind an average: its inputs are all positive, and their means are the most of them."""
    w = writer(3)
    x = w.op("Flatten", [w.op("GlobalAveragePool", [w.relu(w.conv(w.input(3), 32, bias=True))], 32)], 32)
    weight, bias = w.constant(w.rng.standard_normal((32, 10))), w.constant(w.rng.standard_normal(10))
    if kind == "gemm":
        return w.model(w.op("Gemm", [x, weight, bias], 10))
    product = w.op("MatMul", [x, weight], 10)
    return w.model(product if kind == "matmul" else w.op("Add", [product, bias], 10))


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("kind", ["matmul", "matmul and add", "gemm"])
def test_second_order_is_no_worse_than_nearest_where_means_are_most_of_the_inputs(kind: str, correct: bool) -> None:
    model, batch = head(kind), np.concatenate(batches(8)[4:])
    reference, found = run(model, batch), {}
    for rounding in ("gptq", "nearest"):
        options = TuneOptions("minmax", rounding=rounding, equalize=False, correct_bias=correct)  # type: ignore[arg-type]
        one = tuned(model, options)
        found[rounding] = sqnr_db(reference, run(quantize(model, one.table, CPU, one.rounded).model, batch))
    assert found["gptq"] > found["nearest"] - 0.2, found
    weight = list(one.rounded.values())[-1]
    assert (weight.bias is None) == (kind == "matmul")


def test_uncentred_moments_are_the_mean_of_the_squares() -> None:
    found = layer(convolution(group=2))
    observer, data = MomentObserver([found]), [batch[:, [0, 1, 2, 0, 1, 2]] + 1 for batch in batches(3)]
    for batch in data:
        observer.add({"x": batch})
    (moments,) = observer.moments().values()
    for group, rows in enumerate(patches(found, np.concatenate(data)).astype(np.float64)):
        assert np.allclose(moments.uncentred[group], rows.T @ rows / len(rows), atol=1e-4)


# --- behind a MaxPool -----------------------------------------------------------------------------------------------


def pooled() -> ir.Model:
    """conv relu MaxPool conv: the pair behind the pool uses the range of the one before it."""
    w = writer(4)
    x = w.relu(w.conv(w.input(3), 16, bias=True))
    x = w.op("MaxPool", [x], 16, kernel_shape=[2, 2], strides=[2, 2])
    return w.model(w.conv(x, 6, 1, bias=True))


def test_biases_behind_a_pool_are_corrected_for_the_range_that_the_graph_uses() -> None:
    """The largest values pass a pool and many are cut off, so the means move by much; the corrected ones agree."""
    model, batch = pooled(), np.concatenate(batches())
    options = TuneOptions("percentile", percentile=90.0, equalize=False)
    found = tuned(model, options)
    reference = run(model, batch).mean(axis=(0, 2, 3))
    means = run(quantize(model, found.table, CPU, found.rounded).model, batch).mean(axis=(0, 2, 3))
    assert found.table["relu_1"].max < 0.9 * found.table["maxpool_2"].max
    left = tuned(model, replace(options, correct_bias=False))
    before = run(quantize(model, left.table, CPU, left.rounded).model, batch).mean(axis=(0, 2, 3))
    assert np.abs(before - reference).max() > 0.05
    assert np.abs(means - reference).max() < 0.3 * np.abs(before - reference).max()
