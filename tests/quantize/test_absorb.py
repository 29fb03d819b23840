import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.quantize import quantize
from rir_deploy.quantize.absorb import absorb_biases, absorb_normalizations
from tests.quantize.graphs import array, batches, calibrate, edges, ops, run, two_streams, writer


def single(bias: bool) -> ir.Model:
    w = writer()
    x = w.relu(w.bn(w.conv(w.input(3), 8, bias=bias)))
    return w.model(w.bn(w.conv(x, 5)))


@pytest.mark.parametrize("bias", [False, True])
def test_the_function_stays(bias: bool) -> None:
    model = single(bias)
    batch = batches(1)[0]
    expected = run(model, batch)
    assert absorb_normalizations(model.graph) == 2
    assert ops(model) == {"Conv": 2, "Relu": 1}
    assert [value.name for value in model.graph.outputs] == ["batchnormalization_4"]
    assert np.allclose(run(model, batch), expected, rtol=1e-4, atol=1e-5)


def test_by_hand() -> None:
    w = writer()
    x = w.input(1)
    conv = w.op("Conv", [x, w.constant(np.full((1, 1, 1, 1), 2.0)), w.constant(np.array([1.0]))], 1)
    parameters = [w.constant(np.array([value])) for value in (3.0, 0.5, 4.0, 0.25)]  # gamma, beta, mean, var
    model = w.model(w.op("BatchNormalization", [conv, *parameters], 1, epsilon=0.0))
    absorb_normalizations(model.graph)
    (node,) = model.graph
    assert array(node.inputs[1]).item() == 12.0  # 3 / sqrt(1/4) * 2
    assert array(node.inputs[2]).item() == -17.5  # 6 * (1 - 4) + 1/2


def test_behind_a_sum_or_beside_another_reader_it_stays() -> None:
    model = two_streams()
    assert absorb_normalizations(model.graph) == 0
    assert ops(model)["BatchNormalization"] == 2
    w = writer()
    y = w.conv(w.input(3), 4)
    shared = w.model(w.add(w.bn(y), y))
    assert absorb_normalizations(shared.graph) == 0
    w = writer()
    y = w.conv(w.input(3), 4)
    assert absorb_normalizations(w.model(w.bn(y), y).graph) == 0


def test_quantize_puts_the_pair_behind_relu_not_before_the_normalisation() -> None:
    model = single(True)
    result = quantize(model, calibrate(model))
    assert result.quantized == ("n0", "n3")
    assert edges(result.model)[2:5] == [
        "Conv(x_dequantized, batchnormalization_1.weight_dequantized) -> batchnormalization_1",
        "Relu(batchnormalization_1) -> relu_2",
        "QuantizeLinear(relu_2) -> relu_2_quantized",
    ]
    assert ops(model)["BatchNormalization"] == 2


@pytest.mark.parametrize("shape", [(5,), (1, 5), (), (1,), (1, 1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_constant_added_to_a_product_is_its_bias(shape: tuple[int, ...], swapped: bool) -> None:
    w = writer()
    product = w.op("MatMul", [w.input(6, ()), w.constant(w.rng.standard_normal((6, 5)))], 5)
    operands = [product, w.constant(np.asarray(w.rng.standard_normal(shape)))]
    model = w.model(w.op("Relu", [w.op("Add", operands[:: -1 if swapped else 1], 5)], 5))
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = run(model, x)
    assert absorb_biases(model.graph) == 1
    assert ops(model) == {"Gemm": 1, "Relu": 1}
    assert array(model.graph[0].inputs[2]).shape == (5,)
    assert str(model.graph[0].outputs[0].name) == "add_1"
    assert np.allclose(run(model, x), expected, rtol=1e-5, atol=1e-6)


def test_what_is_no_bias_stays_a_sum() -> None:
    w = writer()
    x, square = w.input(5, ()), w.constant(w.rng.standard_normal((5, 5)))
    column = w.op("Add", [w.op("MatMul", [x, square], 5), w.constant(w.rng.standard_normal((5, 1)))], 5)
    shortcut = w.op("Add", [w.op("MatMul", [x, square], 5), x], 5)
    read_twice = w.op("MatMul", [x, square], 5)
    bias = w.op("Add", [read_twice, w.constant(w.rng.standard_normal(5))], 5)
    model = w.model(column, shortcut, bias, read_twice)
    assert absorb_biases(model.graph) == 0
