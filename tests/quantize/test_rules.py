import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError
from rir_deploy.quantize import QuantizeOptions, quantize
from rir_deploy.tensorrt_rules import check_tensorrt_graph
from tests.quantize.graphs import calibrate, chain, residual, two_streams


def pair(zero_point: np.ndarray | None, **attributes: int) -> ir.Model:
    names = ["x", "s"] + ([] if zero_point is None else ["z"])
    tensors = [onnx.numpy_helper.from_array(np.array(0.1, dtype=np.float32), "s")]
    if zero_point is not None:
        tensors.append(onnx.numpy_helper.from_array(zero_point, "z"))
    nodes = [
        onnx.helper.make_node("QuantizeLinear", names, ["q"], name="quantizer", **attributes),
        onnx.helper.make_node("DequantizeLinear", ["q", *names[1:]], ["y"], name="dequantizer"),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "pair", [x], [y], tensors)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]))


@pytest.mark.parametrize("make", [chain, residual, two_streams])
def test_takes_what_quantize_makes_and_float_graphs(make) -> None:  # type: ignore[no-untyped-def]
    check_tensorrt_graph(make())
    for rest in ("fp32", "fp16"):
        check_tensorrt_graph(quantize(make(), calibrate(make()), QuantizeOptions(rest=rest)).model)


def test_takes_other_types_of_its_own() -> None:
    check_tensorrt_graph(pair(np.array(0, dtype=np.int8)))
    check_tensorrt_graph(pair(None, output_dtype=int(ir.DataType.FLOAT8E4M3FN)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (pair(np.array(0, dtype=np.uint8)), "uint8, which the parser reads as int8"),
        (pair(None), "uint8, which the parser reads as int8"),  # ONNX's default
        (pair(None, output_dtype=int(ir.DataType.UINT8)), "uint8"),
        (pair(np.array(3, dtype=np.int8)), "zero point 'z' is not 0 everywhere"),
        (pair(np.array(0, dtype=np.int16)), "its integers are INT16"),
    ],
)
def test_refuses(model: ir.Model, reason: str) -> None:
    with pytest.raises(InputError, match=rf"QuantizeLinear 'quantizer': .*{reason}.*; quantise the FP32 model with"):
        check_tensorrt_graph(model)


def test_refuses_a_zero_point_in_one_channel() -> None:
    model = quantize(chain(), calibrate(chain())).model
    zeros = np.zeros(16, dtype=np.int8)
    zeros[7] = 1
    model.graph.initializers["w2_zero_point"].const_value = ir.tensor(zeros)
    with pytest.raises(InputError, match="DequantizeLinear 'w2_dequantized/DequantizeLinear': its zero point"):
        check_tensorrt_graph(model)


def test_refuses_an_int32_bias() -> None:
    model = quantize(chain(), calibrate(chain())).model
    scale, stored = (
        ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor, shape=ir.Shape(tensor.shape))
        for name, tensor in (
            ("bias_scale", ir.tensor(np.float32(0.1))),
            ("bias_stored", ir.tensor(np.zeros(8, dtype=np.int32))),
        )
    )
    for value in (scale, stored):
        model.graph.register_initializer(value)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    dequantize = ir.Node("", "DequantizeLinear", [stored, scale], num_outputs=1, name="bias")
    model.graph.insert_before(conv, dequantize)
    conv.replace_input_with(2, dequantize.outputs[0])
    with pytest.raises(InputError, match="'bias': it holds an int32 bias, and the bias must stay float"):
        check_tensorrt_graph(model)


def test_refuses_a_zero_point_unknown_before_run_time() -> None:
    model = pair(np.array(0, dtype=np.int8))
    zero_point = model.graph.initializers.pop("z")
    zero_point.const_value = None
    model.graph.inputs.append(zero_point)
    with pytest.raises(InputError, match="'z' is not a constant"):
        check_tensorrt_graph(model)


def test_refuses_the_cpu_flavour_and_integer_operators() -> None:
    with pytest.raises(InputError, match="TensorRT does not take the QuantizeLinear 'x_quantized/QuantizeLinear'"):
        check_tensorrt_graph(quantize(chain(), calibrate(chain()), QuantizeOptions("cpu")).model)
    model = chain()
    next(iter(model.graph)).op_type = "ConvInteger"
    with pytest.raises(InputError, match="the ConvInteger 'n0': it takes Q/DQ around float operators"):
        check_tensorrt_graph(model)
