"""Sizes, indices and counts keep FP32 in a graph cast to FP16: it gives the shapes and means that it gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rir_deploy.precision import Fp16Result, to_fp16

Array = NDArray[np.float32]


class Graph:
    """Nodes over the input ``x`` [N, 3, H, W], the last of them giving ``y``."""

    def __init__(self, opset: int = 13) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: str = "f4") -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def features(self) -> str:
        weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)) * 0.3
        return self.op("Relu", self.op("Conv", "x", self.constant(weight), pads=[1] * 4))

    def sizes(self, x: str, first: int, last: int) -> str:
        """Sizes of axes, as floats."""
        bounds = [self.constant([bound], "i8") for bound in (first, last, 0)]
        return self.op("Cast", self.op("Slice", self.op("Shape", x), *bounds), to=TensorProto.FLOAT)

    def model(self, size: tuple[int | str, int | str] = ("H", "W"), output: int = TensorProto.FLOAT) -> ir.Model:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, *size])
        y = helper.make_tensor_value_info("y", output, None)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.weights)
        opset = [helper.make_opsetid("", self.opset)]
        return ir.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=8))


def run(model: ir.Model, x: Array) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x})[0])


def images(height: int, width: int = 8) -> Array:
    return np.random.default_rng(height).standard_normal((1, 3, height, width)).astype("f4")


def resize_by_scales(opset: int) -> ir.Model:
    """To 224, by scales computed from the size: what exporters write for ``interpolate(size=224)``."""
    g = Graph(opset)
    h = g.features()
    ratio = g.op("Div", g.constant([224.0, 224.0]), g.sizes(h, 2, 4))
    g.op("Resize", h, "", g.op("Concat", g.constant([1.0, 1.0]), ratio, axis=0), mode="linear", out="y")
    return g.model()


def resize_by_sizes(opset: int) -> ir.Model:
    """To the size of another map, computed in floats and cast back."""
    g = Graph(opset)
    h = g.features()
    scaled = g.op("Floor", g.op("Mul", g.sizes(h, 2, 4), g.constant([1.0, 1.0])))
    sizes = g.op("Cast", scaled, to=TensorProto.INT64)
    first = [g.constant([bound], "i8") for bound in (0, 2, 0)]
    whole = g.op("Concat", g.op("Slice", g.op("Shape", h), *first), sizes, axis=0)
    small = g.op("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    g.op("Resize", small, "", "", whole, mode="nearest", out="y")
    return g.model()


def crop_by_slice(opset: int) -> ir.Model:
    """The upper seven tenths of the rows."""
    g = Graph(opset)
    h = g.features()
    end = g.op("Cast", g.op("Mul", g.sizes(h, 2, 3), g.constant([0.7])), to=TensorProto.INT64)
    g.op("Slice", h, g.constant([0], "i8"), end, g.constant([2], "i8"), out="y")
    return g.model()


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("make", [resize_by_scales, resize_by_sizes, crop_by_slice])
def test_shapes_are_what_they_were(make: Callable[[int], ir.Model], opset: int) -> None:
    model = make(opset)
    cast = to_fp16(model).model
    assert any(value.dtype == ir.DataType.FLOAT16 for node in cast.graph for value in node.outputs)
    for height in (*range(100, 400, 37), 1023, 2049, 2051, 4099):
        assert run(cast, images(height)).shape == run(model, images(height)).shape, height


def mean_by_division() -> ir.Model:
    """A sum over height and width, divided by their product."""
    g = Graph()
    h = g.features()
    count = g.op("ReduceProd", g.sizes(h, 2, 4), keepdims=0)
    total = g.op("ReduceSum", h, g.constant([2, 3], "i8"), keepdims=0)
    g.op("Div", total, count, out="y")
    return g.model()


def test_a_count_over_the_range_of_fp16() -> None:
    """300 * 300 = 90,000 is infinity in FP16, and the mean zero. onnx's reference computes FP16 in numpy's FP16."""
    model, x = mean_by_division(), images(300, 300)
    cast = ReferenceEvaluator(ir.to_proto(to_fp16(model).model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(cast, run(model, x), rtol=2e-3)


def kept(model: ir.Model) -> dict[str, str]:
    result: Fp16Result = to_fp16(model)
    return {node.node: node.reason for node in result.kept}


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((32, 32), None),
        ((32, 64), None),
        ((48, 48), "it adds up 2,304 elements, more than FP16 counts"),
        (("H", "W"), "it adds up a dynamic number of elements, which may be more than FP16 counts"),
    ],
)
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL2"])
def test_sums_over_more_than_fp16_counts(kind: str, size: tuple[int | str, int | str], reason: str | None) -> None:
    g = Graph(18)
    h = g.features()
    axes = [] if kind == "GlobalAveragePool" else [g.constant([2, 3], "i8")]
    g.op(kind, h, *axes, out="y")
    assert kept(g.model(size)) == ({} if reason is None else {"y": reason})


def test_axes_that_are_an_attribute_or_all() -> None:
    for attributes in ({"axes": [-2, -1]}, {}):
        g = Graph(13)
        g.op("ReduceMean", g.features(), out="y", **attributes)
        reason = kept(g.model((64, 64)))["y"]
        assert reason.startswith("it adds up")
        assert ("dynamic" in reason) == (not attributes)  # all axes: the batch among them


def test_a_large_average_pool() -> None:
    g = Graph()
    g.op("AveragePool", g.features(), kernel_shape=[50, 50], out="y")
    assert "2,500" in kept(g.model((64, 64)))["y"]


def test_an_index_beyond_2048_is_exact() -> None:
    """The place of the largest of 5,000 numbers, given as a float."""
    g = Graph()
    flat = g.op("Reshape", g.op("Relu", "x"), g.constant([1, -1], "i8"))
    g.op("Cast", g.op("ArgMax", flat, axis=1, keepdims=0), to=TensorProto.FLOAT, out="y")
    x = np.zeros((1, 3, 100, 50), "f4")
    x.reshape(-1)[14_321] = 1
    assert run(to_fp16(g.model()).model, x) == [14_321.0]


def test_positions_stay_exact_where_they_meet_a_feature_map() -> None:
    g = Graph()
    ramp = g.op("Range", g.constant(0.0), g.constant(3001.0), g.constant(1.0))
    g.op("Add", g.op("Relu", "x"), ramp, out="y")
    x = images(1, 3001)
    np.testing.assert_allclose(run(to_fp16(g.model()).model, x), run(g.model(), x), rtol=1e-3)


def test_pixels_are_no_counts() -> None:
    """Images of 8-bit integers are cast to FP16 at once: the graph holds no FP32 then."""
    pixels = helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 3, 8, 8])
    g = Graph()
    scaled = g.op("Mul", g.op("Cast", "x", to=TensorProto.FLOAT), g.constant(1 / 255))
    g.op("Conv", scaled, g.constant(np.ones((4, 3, 3, 3))), out="y")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(g.nodes, "g", [pixels], [y], g.weights)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    assert kept(model) == {}


def test_what_follows_a_count_is_cast_again() -> None:
    """Only the division keeps FP32, not the network behind it."""
    g = Graph()
    h = g.features()
    scaled = g.op("Div", h, g.sizes(h, 2, 3))
    g.op("Conv", scaled, g.constant(np.ones((2, 4, 1, 1))), out="y")
    assert set(kept(g.model())) == {"cast4", "div5"}


def test_coordinates_that_a_feature_map_moves() -> None:
    """A warp by a flow: positions up to 4,000 and a feature map together are the grid of a GridSample."""
    g = Graph(18)
    flow = g.op("Conv", "x", g.constant(np.full((1, 3, 1, 1), 0.1)))
    row = g.op("Reshape", g.op("Range", *map(g.constant, (0.0, 4000.0, 1.0))), g.constant([1, 1, 1, 4000], "i8"))
    place = g.op("Add", flow, row)
    across = g.op("Sub", g.op("Mul", place, g.constant(2 / 3999)), g.constant(1.0))
    both = g.op("Concat", across, g.op("Mul", across, g.constant(0.0)), axis=1)
    g.op("GridSample", "x", g.op("Transpose", both, perm=[0, 2, 3, 1]), out="y", align_corners=1)
    x = np.cumsum(images(1, 4000), axis=3) / 64  # smooth, so that a place that is off by little differs by little
    expected = run(g.model((1, 4000)), x)
    found = run(to_fp16(g.model((1, 4000))).model, x)
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()


LONG: dict[str, Callable[[Graph, str], str]] = {
    "CumSum": lambda g, h: g.op("CumSum", h, g.constant(3, "i8")),
    "Einsum": lambda g, h: g.op("Einsum", h, equation="nchw->nc"),
    "LpPool": lambda g, h: g.op("LpPool", h, kernel_shape=[1, 3000], p=1),
    "InstanceNormalization": lambda g, h: g.op(
        "InstanceNormalization", h, g.constant(np.ones(4)), g.constant(np.zeros(4))
    ),
    "LayerNormalization": lambda g, h: g.op("LayerNormalization", h, g.constant(np.ones(3000))),
    "LpNormalization": lambda g, h: g.op("LpNormalization", h, axis=3),
}


@pytest.mark.parametrize("kind", LONG)
def test_every_op_that_adds_up(kind: str) -> None:
    """Over 3,000 columns each keeps FP32, over 30 none does."""
    g = Graph(18)
    node = LONG[kind](g, g.features())
    assert "adds up" in kept(_with_output(g, node, 3000)).get(node, "") or kind == "CumSum"
    assert node in kept(_with_output(g, node, 3000))


@pytest.mark.parametrize("kind", ["Einsum", "InstanceNormalization", "LpNormalization"])
def test_no_op_that_adds_up_little(kind: str) -> None:
    g = Graph(18)
    node = LONG[kind](g, g.features())
    assert kept(_with_output(g, node, 30)) == {}


def _with_output(g: Graph, name: str, width: int) -> ir.Model:
    closing = helper.make_node("Identity", [name], ["y"], name="closing")
    g.nodes = [node for node in g.nodes if node.name != "closing"] + [closing]
    return g.model((1, width))


@pytest.mark.parametrize("dtype", [TensorProto.INT32, TensorProto.UINT16, TensorProto.INT64])
def test_an_image_of_wide_integers_is_an_image(dtype: int) -> None:
    """Its scaling keeps FP32; the layers behind it are cast."""
    pixels = helper.make_tensor_value_info("x", dtype, ["N", 3, 8, 8])
    g = Graph()
    scaled = g.op("Div", g.op("Cast", "x", to=TensorProto.FLOAT), g.constant(255.0))
    g.op("Conv", scaled, g.constant(np.ones((4, 3, 3, 3))), out="y")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(g.nodes, "g", [pixels], [y], g.weights)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    assert "y" not in kept(model)
