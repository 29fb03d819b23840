"""The arithmetic against plain loops, and its error bounds."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx.reference import ReferenceEvaluator

from rir_deploy.quantize.scales import (
    Affine,
    asymmetric_uint8,
    int32_bias,
    representable,
    scales_for_bias,
    symmetric_int8,
    weight_scales,
)

sane = st.floats(-1e6, 1e6, width=32)
bounds = st.tuples(sane, sane).map(sorted).filter(lambda pair: max(map(abs, pair)) > 1e-30)
weights = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(-100, 100, width=32))


def spread(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 201).astype(np.float32)


@given(bounds, st.booleans())
def test_symmetric_error_is_half_a_step(pair: list[float], half: bool) -> None:
    affine = symmetric_int8(*pair, half=half and max(map(abs, pair)) < 1e5)
    x = spread(*pair)
    error = np.abs(affine.dequantize(affine.quantize(x)) - x.astype(np.float64))
    assert affine.zero_point == 0
    assert affine.zero_point.dtype == np.int8
    assert error.max() <= 0.5001 * float(affine.scale)
    assert float(affine.scale) <= max(map(abs, pair)) / 127 * (1 + 2**-9) + 2**-24


@given(bounds)
def test_asymmetric_error_is_half_a_step_and_zero_is_exact(pair: list[float]) -> None:
    affine = asymmetric_uint8(*pair)
    x = spread(*pair)
    error = np.abs(affine.dequantize(affine.quantize(x)) - x.astype(np.float64))
    assert error.max() <= 1.001 * float(affine.scale)  # at the ends the rounded zero point may cost half a step more
    assert affine.dequantize(affine.quantize(np.zeros(1, dtype=np.float32)))[0] == 0.0
    assert affine.zero_point.dtype == np.uint8


def test_asymmetric_by_hand() -> None:
    affine = asymmetric_uint8(-1.0, 1.55)
    assert affine.scale == np.float32(0.01)
    assert affine.zero_point == 100
    assert asymmetric_uint8(0.0, 2.55).zero_point == 0
    assert asymmetric_uint8(0.5, 2.55).scale == np.float32(0.01)  # zero is always in
    assert asymmetric_uint8(-2.55, -1.0).zero_point == 255
    assert list(affine.quantize(np.array([-9.0, -1.0, 0.0, 0.014, 9.0]))) == [0, 0, 100, 101, 255]


def test_ties_go_to_even() -> None:
    affine = Affine(np.array(2.0, dtype=np.float32), np.array(0, dtype=np.int8))
    assert list(affine.quantize(np.array([-5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 300.0, -300.0]))) == [
        *(-2, -2, 0, 0, 2, 2),
        *(127, -128),
    ]


@given(weights, st.sampled_from([127, 64]), st.booleans())
def test_weights_a_channel_against_loops(weight: np.ndarray, limit: int, half: bool) -> None:
    scale = weight_scales(weight, 0, limit, half=half)
    affine = Affine(scale, np.zeros(len(weight), dtype=np.int8), 0)
    stored = affine.quantize(weight)
    for row, integers, step in zip(weight.astype(np.float64), stored, scale, strict=True):
        largest = max(abs(value) for value in row)
        if largest == 0.0:
            assert step == 1.0
        elif half:
            assert np.float16(step) == step
            assert largest / limit <= step * (1 + 1e-7)
        else:
            assert step == np.float32(max(largest / limit, np.finfo(np.float32).tiny))
        for value, integer in zip(row, integers, strict=True):
            assert integer == max(-limit, min(limit, round(value / float(step))))
            assert abs(integer * float(step) - value) <= 0.5001 * float(step)


def test_weights_on_another_axis() -> None:
    weight = np.array([[1.0, 10.0], [2.0, -20.0], [3.0, 30.0]], dtype=np.float32)
    assert np.allclose(weight_scales(weight, 1, 127), [3 / 127, 30 / 127])
    affine = Affine(weight_scales(weight, 1, 127), np.zeros(2, dtype=np.int8), 1)
    assert affine.quantize(weight).tolist() == [[42, 42], [85, -85], [127, 127]]


@given(st.floats(1e-6, 1e3), st.floats(-1e4, 1e4, width=32), st.floats(1e-12, 1.0))
def test_a_bias_fits_int32_at_half_a_step(input_scale: float, bias: float, weight: float) -> None:
    biases, x_scale = np.array([bias], dtype=np.float32), np.array(input_scale, dtype=np.float32)
    scales = scales_for_bias(np.array([weight / 127], dtype=np.float32), biases, x_scale)
    affine = int32_bias(biases, x_scale, scales)
    stored = affine.quantize(biases)
    assert scales[0] >= np.float32(weight / 127)
    assert abs(int(stored[0])) <= 2**30 * (1 + 1e-6)
    assert affine.scale[0] == np.float32(x_scale * scales[0])
    assert abs(int(stored[0]) * float(affine.scale[0]) - float(biases[0])) <= 0.5001 * float(affine.scale[0])


def test_int8_minimum_does_not_overflow() -> None:
    affine = Affine(np.array(1.0, dtype=np.float32), np.array(100, dtype=np.uint8))
    assert affine.dequantize(np.array([0, 255], dtype=np.uint8)).tolist() == [-100.0, 155.0]


@pytest.mark.parametrize("affine", [symmetric_int8(-1.3, 2.7), asymmetric_uint8(-1.3, 2.7)])
def test_same_integers_as_onnx_defines(affine: Affine) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, 1000).astype(np.float32)
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    tensors = {"s": affine.scale, "z": affine.zero_point}
    graph = onnx.helper.make_graph(
        nodes,
        "qdq",
        [onnx.helper.make_tensor_value_info("x", 1, [1000])],
        [onnx.helper.make_empty_tensor_value_info("q"), onnx.helper.make_tensor_value_info("y", 1, [1000])],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    integers, values = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(affine.quantize(x), integers)
    assert np.allclose(affine.dequantize(integers), values, rtol=1e-6)


@given(st.floats(0, 1e6))
def test_a_scale_of_halves_is_never_0_never_infinite_and_never_smaller(scale: float) -> None:
    found = float(representable(np.array(scale), half=True))
    assert 0 < found < np.inf
    assert found >= np.float32(scale)
    assert scale > 65504 or found == np.float16(found)
    assert found <= scale * (1 + 2**-9) + 2**-13


def test_what_is_zero_in_all_of_calibration_gets_a_step_that_is_no_zero() -> None:
    for affine in (symmetric_int8(0, 0), symmetric_int8(0, 0, half=True), asymmetric_uint8(0, 0)):
        assert float(affine.scale) > 0
