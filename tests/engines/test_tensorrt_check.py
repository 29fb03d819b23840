from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError
from rir_deploy.tensorrt_rules import check_tensorrt_graph
from tests.engines.graphs import Quantised, classifier, quantised


@pytest.mark.parametrize(
    ("options", "node", "reason"),
    [
        (Quantised(activations="uint8"), "QuantizeLinear_q0", "uint8"),
        (Quantised(activations="uint8", zero_point=128), "QuantizeLinear_q0", "uint8"),
        (Quantised(write_zero_point=False), "QuantizeLinear_q0", "uint8"),
        (Quantised(zero_point=3), "QuantizeLinear_q0", "is not 0 everywhere"),
        (Quantised(zero_point=-128), "QuantizeLinear_q0", "is not 0 everywhere"),
        (Quantised(int32_bias=True), "DequantizeLinear_b0", "int32 bias"),
        (Quantised(weights="int4"), "DequantizeLinear_wd0", "4-bit"),
    ],
    ids=str,
)
def test_what_tensorrt_misreads_is_refused_by_name(options: Quantised, node: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"'{node}'.*{reason}.*--qdq tensorrt"):
        check_tensorrt_graph(quantised(options))


def test_unsigned_weights_are_refused() -> None:
    model = quantised()
    value = model.graph.initializers["w0"]
    array = value.const_value.numpy().astype("uint8")  # type: ignore[union-attr]
    value.const_value = ir.tensor(array, name="w0")
    value.dtype = ir.DataType.UINT8
    with pytest.raises(InputError, match=r"'DequantizeLinear_wd0'.*uint8"):
        check_tensorrt_graph(model)


def test_a_zero_point_that_is_computed_is_refused() -> None:
    model = quantised(Quantised(convs=1))
    node = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    value = ir.Value(name="zero", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape([]))
    model.graph.inputs.append(value)
    node.replace_input_with(2, value)
    with pytest.raises(InputError, match="not a constant"):
        check_tensorrt_graph(model)


@pytest.mark.parametrize("model", [quantised(), quantised(Quantised(channels=8, convs=1)), classifier()])
def test_symmetric_int8_and_float_graphs_pass(model: ir.Model) -> None:
    check_tensorrt_graph(model)


def test_a_node_without_a_name_is_named_by_its_output() -> None:
    model = quantised(Quantised(activations="uint8"))
    for node in model.graph:
        node.name = None
    with pytest.raises(InputError, match="the QuantizeLinear 'q0'"):
        check_tensorrt_graph(model)


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    model = quantised(Quantised(convs=1))
    node = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), scale), name=value.name)
    with pytest.raises(InputError, match=f"the QuantizeLinear '{node.name}': its scale '{value.name}' is not over 0"):
        check_tensorrt_graph(model)
