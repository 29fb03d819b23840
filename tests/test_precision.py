"""FP16 graphs: what is cast, what stays FP32 and why, and the simulation of what a device computes."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError
from rir_deploy.precision import HALF_MAX, Fp16Result, to_fp16
from rir_deploy.simulate import SIMULATION_KEY, simulate_fp16
from tests.fold.graphs import Writer
from tests.quantize.graphs import array, batches, chain, ops, run, session, sqnr_db, two_streams, writer

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def checked(model: ir.Model, ranges: dict[str, float] | None = None) -> Fp16Result:
    """Cast, with the promises that hold for every graph."""
    before = ir.to_proto(model).SerializeToString()
    result = to_fp16(model, ranges=ranges)
    assert ir.to_proto(model).SerializeToString() == before
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    for old, new in (
        (model.graph.inputs, result.model.graph.inputs),
        (model.graph.outputs, result.model.graph.outputs),
    ):
        assert [(value.name, value.dtype) for value in old] == [(value.name, value.dtype) for value in new]
    return result


def types(model: ir.Model) -> dict[str, ir.DataType | None]:
    return {str(value.name): value.dtype for node in model.graph for value in node.outputs}


def growing(factor: float) -> ir.Model:
    """x * factor = mul_0; relu_1; mul_2 = relu_1 / factor, back in range."""
    w = writer()
    return w.model(w.scale(w.relu(w.scale(w.input(3), factor)), 1 / factor))


def chained(factor: float) -> ir.Model:
    """The same with one more product, which stays in range."""
    w = writer()
    return w.model(w.scale(w.scale(w.relu(w.scale(w.input(3), factor)), 1 / factor), 0.5))


# --- casting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [chain, two_streams])
def test_everything_between_the_borders_is_fp16(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    result = checked(model)
    assert result.kept == ()
    found = types(result.model)
    (output,) = (value.name for value in model.graph.outputs)
    assert found.pop(output) == FLOAT
    assert set(found.values()) == {HALF}
    assert ops(result.model) == ops(model) + Counter({"Cast": 2})
    for name, value in model.graph.initializers.items():
        old, new = array(value), array(result.model.graph.initializers[name])
        assert np.array_equal(new, old.astype(np.float16) if old.dtype == np.float32 else old)


def test_twice_is_refused() -> None:
    with pytest.raises(InputError, match="nothing in the model computes in FP32"):
        to_fp16(to_fp16(chain()).model)


def test_one_cast_a_tensor_however_many_read_it() -> None:
    w = writer()
    x = w.input(3)
    result = checked(w.model(w.add(w.conv(x, 4), w.conv(x, 4), w.conv(x, 4))))
    assert ops(result.model)["Cast"] == 2


def test_uint8_images_need_no_fp32() -> None:
    w = writer()
    w.inputs.append(onnx.helper.make_tensor_value_info("u8", onnx.TensorProto.UINT8, ["batch", 8, 8, 3]))
    w.channels["u8"] = 3
    pixels = w.op("Transpose", [w.op("Cast", ["u8"], 3, to=onnx.TensorProto.FLOAT)], 3, perm=[0, 3, 1, 2])
    model = w.model(w.conv(w.scale(pixels, 1 / 255), 4))
    result = checked(model)
    cast = next(iter(result.model.graph))
    assert (cast.op_type, cast.attributes["to"].as_int()) == ("Cast", HALF)
    assert ops(result.model) == ops(model) + Counter({"Cast": 1})
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert sqnr_db(run(model, image), run(simulate_fp16(result.model), image)) > 55


def test_outputs_that_are_read_inside_too() -> None:
    w = writer()
    x = w.relu(w.input(3))
    result = checked(w.model(x, w.conv(x, 4)))
    assert [value.dtype for value in result.model.graph.outputs] == [FLOAT, FLOAT]
    assert types(result.model)["relu_0_fp16"] == HALF
    assert sqnr_db(run(w.model(x), batches()[0]), run(result.model, batches()[0])) > 55


def test_weights_of_a_model_cannot_be_replaced_at_run_time() -> None:
    model = chain()
    model.graph.inputs.append(model.graph.initializers["w0"])
    result = to_fp16(model)
    assert [value.name for value in result.model.graph.inputs] == ["x"]
    assert array(result.model.graph.initializers["w0"]).dtype == np.float16


# --- what stays FP32 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (7e4, "its weight 'w0' reaches 7e+04, over FP16's 65504"),
        (-1e30, "its weight 'w0' reaches 1e+30, over FP16's 65504"),
        (1e-7, "its weight 'w0' reaches 1e-07, below FP16's normal range"),
        (
            1.03e-6,
            "its weight 'w0' reaches 1.03e-06, below FP16's normal range",
        ),  # 17 of its smallest steps, and a rest
    ],
)
def test_weights_that_leave_the_range(factor: float, reason: str) -> None:
    result = checked(growing(factor))
    kept = {entry.node: entry.reason for entry in result.kept}
    assert kept["n0"] == reason
    assert types(result.model)["mul_0"] == FLOAT
    assert array(result.model.graph.initializers["w0"]).dtype == np.float32


@pytest.mark.parametrize("factor", [HALF_MAX, 1.0, 0.0, 2.0**-14])
def test_weights_that_do_not(factor: float) -> None:
    w = writer()
    assert checked(w.model(w.scale(w.input(3), factor))).kept == ()


def test_a_few_tiny_weights_among_others_do_no_harm() -> None:
    model = chain()
    weight = array(model.graph.initializers["w0"]).copy()
    weight[0, 0] = 1e-9
    model.graph.initializers["w0"].const_value = ir.tensor(weight)
    assert to_fp16(model).kept == ()


def test_activations_over_the_range_and_their_readers() -> None:
    model = growing(100.0)
    assert to_fp16(model).kept == ()  # no data, nothing known about activations
    assert to_fp16(model, ranges={"mul_0": HALF_MAX, "relu_1": HALF_MAX}).kept == ()
    result = checked(model, {"x": 900.0, "mul_0": 9e4, "relu_1": 9e4, "mul_2": 900.0})
    assert [(kept.node, kept.reason) for kept in result.kept] == [
        ("n0", "its output 'mul_0' reaches 9e+04, over FP16's 65504"),
        ("n1", "its output 'relu_1' reaches 9e+04, over FP16's 65504"),
        ("n2", "its input 'relu_1' reaches 9e+04, over FP16's 65504"),
    ]
    data = np.full((1, 3, 8, 8), 900.0, dtype=np.float32)
    assert np.array_equal(run(result.model, data), run(model, data))


def test_a_kept_node_in_the_middle_stands_between_casts() -> None:
    w = writer()
    y = w.relu(w.conv(w.scale(w.relu(w.input(3)), 7e4), 4))
    result = checked(w.model(y))
    assert [kept.node for kept in result.kept] == ["n1"]
    found = types(result.model)
    assert (found["relu_0"], found["relu_0_fp32"], found["mul_1"], found["mul_1_fp16"]) == (HALF, FLOAT, FLOAT, HALF)


def test_a_weight_read_in_both_types_is_there_twice() -> None:
    w = writer()
    x = w.input(3)
    one = w.constant(np.array([0.5]))
    small = w.op("Mul", [x, one], 3)
    large = w.op("Mul", [w.scale(x, 1e6), one], 3)
    result = checked(w.model(small, large), {"mul_1": 1e6})
    weights = result.model.graph.initializers
    assert array(weights[one]).dtype == np.float32
    assert array(weights[f"{one}_fp16"]).dtype == np.float16


def test_bounds_of_a_clip_may_be_infinite() -> None:
    w = writer()
    bounds = [w.constant(np.array(value, dtype=np.float32)) for value in (0.0, 3.4e38)]
    model = w.model(w.op("Clip", [w.input(3), *bounds], 3))
    result = checked(model)
    assert result.kept == ()
    assert array(result.model.graph.initializers[bounds[1]]) == np.inf
    assert sqnr_db(run(model, batches()[0]), run(result.model, batches()[0])) > 55


def test_operators_without_fp16() -> None:
    w = writer()
    x = w.op("Mish", [w.input(3)], 3)
    x = w.op("Resize", [x, "", w.constant(np.array([1.0, 1.0, 2.0, 2.0]))], 3)
    model = w.model(x)
    resized = model.graph.outputs[0]
    model.graph.append(ir.Node("example", "Odd", [resized], num_outputs=1, name="odd"))
    model.graph.opset_imports["example"] = 1
    result = to_fp16(model)
    assert {kept.node: kept.reason for kept in result.kept} == {"odd": "example.Odd is not an ONNX operator"}
    resize = next(node for node in result.model.graph if node.op_type == "Resize")
    assert resize.inputs[2].dtype == FLOAT  # the scales of a Resize are FP32 by definition
    assert resize.inputs[0].dtype == HALF  # type: ignore[union-attr]
    w = Writer(dtype=np.float32, opset=17)
    pair = [w.constant(np.array(0.1)), w.constant(np.array(0, dtype=np.int8))]
    model = w.model(w.op("DequantizeLinear", [w.op("QuantizeLinear", [w.input(3), *pair], 3), *pair], 3))
    assert {kept.reason for kept in checked(model).kept} == {
        "ONNX opset 17 defines no FP16 QuantizeLinear",
        "ONNX opset 17 defines no FP16 DequantizeLinear",
    }


def test_a_node_that_sets_its_own_type() -> None:
    w = writer()
    x = w.input(3)
    ones = w.op("ConstantOfShape", [w.op("Shape", [x], 1)], 3)
    w.nodes[0].output[0], w.nodes[1].input[0] = "sizes", "sizes"  # an integer tensor, which Writer would call float
    result = checked(w.model(w.add(x, ones)))
    assert [(kept.node, kept.reason) for kept in result.kept] == [("n1", "the node itself sets its output type")]


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"the range of 'mul_0' is nan.*calibrate again"):
        to_fp16(growing(1.0), ranges={"mul_0": float("nan")})
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "b", [], [onnx.helper.make_tensor_value_info("y", 1, ["n"])]
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["c"], ["z"], name="choice", then_branch=branch, else_branch=branch)],
        "g",
        [onnx.helper.make_tensor_value_info("c", 9, []), onnx.helper.make_tensor_value_info("x", 1, ["n"])],
        [onnx.helper.make_tensor_value_info("z", 1, ["n"])],
    )
    with pytest.raises(InputError, match="'choice' is control flow"):
        to_fp16(ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])))


# --- the simulation -------------------------------------------------------------------------------------------------


def test_rounds_every_tensor_as_numpy_does() -> None:
    w = writer()
    x = w.input(3)
    model = w.model(w.scale(w.add(w.scale(x, 1 / 3), x), 0.7))
    simulated = simulate_fp16(to_fp16(model).model)
    data = batches()[0]
    x16 = data.astype(np.float16)
    third, seven = np.float32(np.float16(1 / 3)), np.float32(np.float16(0.7))
    first = (x16.astype(np.float32) * third).astype(np.float16)
    second = (first.astype(np.float32) + x16.astype(np.float32)).astype(np.float16)
    assert np.array_equal(
        run(simulated, data), (second.astype(np.float32) * seven).astype(np.float16).astype(np.float32)
    )


def test_an_intermediate_of_810000_is_infinite_as_on_a_device() -> None:
    half = to_fp16(growing(900.0)).model
    data = np.full((1, 3, 8, 8), 900.0, dtype=np.float32)
    assert np.isfinite(run(half, data)).all()  # ONNX Runtime computes the FP16 graph in FP32: no proof of anything
    assert np.isinf(run(simulate_fp16(half), data)).all()
    kept = to_fp16(chained(900.0), ranges={"mul_0": 8.1e5, "relu_1": 8.1e5})
    assert len(kept.kept) == 3
    assert np.isinf(run(simulate_fp16(to_fp16(chained(900.0)).model), data)).all()
    assert np.isfinite(run(simulate_fp16(kept.model), data)).all()


def test_numbers_under_the_range_vanish() -> None:
    half = to_fp16(growing(1e-3)).model
    data = np.full((1, 3, 8, 8), 1e-5, dtype=np.float32)
    assert not run(simulate_fp16(half), data).any()


def test_onnxruntime_keeps_the_rounding_at_every_level(tmp_path) -> None:  # type: ignore[no-untyped-def]
    simulated = simulate_fp16(to_fp16(growing(900.0)).model)
    path = str(tmp_path / "optimized.onnx")
    session(simulated, path)
    targets = [node.attribute[0].i for node in onnx.load(path).graph.node if node.op_type == "Cast"]
    assert targets == [HALF, FLOAT] * 3  # the input and two products; a Relu needs none


def test_is_labelled_and_keeps_types_and_accuracy() -> None:
    model = two_streams()
    half = to_fp16(model).model
    before = ir.to_proto(half).SerializeToString()
    simulated = simulate_fp16(half)
    assert ir.to_proto(half).SerializeToString() == before
    onnx.checker.check_model(ir.to_proto(simulated), full_check=True)
    assert "rounding every tensor to float16" in simulated.metadata_props[SIMULATION_KEY]
    assert simulated.graph.inputs[0].dtype == simulated.graph.outputs[0].dtype == FLOAT
    assert sqnr_db(run(model, batches()[0]), run(simulated, batches()[0])) > 55


def test_simulation_refuses_what_is_not_fp16_inside() -> None:
    with pytest.raises(InputError, match="nothing in the model is FP16"):
        simulate_fp16(chain())
    half = to_fp16(chain()).model
    half.graph.inputs[0].type = ir.TensorType(HALF)
    with pytest.raises(InputError, match="'x' enters or leaves the model as FP16"):
        simulate_fp16(half)
