"""Small graphs for engines, as a user's exporter would write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.fold.graphs import Writer

Array = NDArray[np.generic]


def classifier() -> ir.Model:
    """float32 [N, 3, 8, 8] -> logits [N, 5]: convolutions, a shortcut, pooling and a Gemm."""
    w = Writer(seed=7, dtype=np.float32)
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.relu(w.add(w.conv(x, 8, bias=True), x))
    flat = w.op("Flatten", [w.op("GlobalAveragePool", [x], 8)], 8)
    matrix = w.constant(w.rng.standard_normal((5, 8)))
    logits = w.op("Gemm", [flat, matrix, w.constant(w.rng.standard_normal(5))], 5, transB=1)
    return w.model(logits)


def many_outputs() -> ir.Model:
    """float32 [N, 3, 8, 8] -> logits [N, 5], features [N, 8, 8, 8] and their means [N, 8, 1, 1]."""
    w = Writer(seed=8, dtype=np.float32)
    features = w.relu(w.conv(w.input(3), 8, bias=True))
    means = w.op("GlobalAveragePool", [features], 8)
    matrix = w.constant(w.rng.standard_normal((5, 8)))
    logits = w.op("Gemm", [w.op("Flatten", [means], 8), matrix], 5, transB=1)
    return w.model(logits, features, means)


def camera() -> ir.Model:
    """uint8 [N, 3, 8, 8] -> float32 [N, 4, 8, 8]: a convolution of pixels."""
    weights = np.random.default_rng(4).standard_normal((4, 3, 3, 3)).astype(np.float32) / 255
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["pixels"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Conv", ["pixels", "w"], ["y"], pads=[1] * 4),
        ],
        "camera",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


@dataclass(frozen=True)
class Quantised:
    """How a chain of quantised convolutions is written; the defaults are what TensorRT wants."""

    activations: str = "int8"
    weights: str = "int8"
    zero_point: int = 0
    write_zero_point: bool = True
    int32_bias: bool = False
    convs: int = 3
    channels: int = 16
    float_type: type = np.float32


def quantised(options: Quantised | None = None) -> ir.Model:
    """[N, 3, 8, 8] -> [N, channels, 8, 8]: Q, DQ, Conv with per-channel DQ weights, Relu, again and again."""
    return ir.from_proto(_Chain(options or Quantised()).proto())


class _Chain:
    def __init__(self, options: Quantised) -> None:
        self.options, self.rng = options, np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def proto(self) -> onnx.ModelProto:
        o = self.options
        x, channels = "x", 3
        for i in range(o.convs):
            x, channels = self.block(i, x, channels), o.channels
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(o.float_type))
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info("x", kind, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info(x, kind, ["batch", o.channels, 8, 8])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def block(self, i: int, x: str, channels: int) -> str:
        o = self.options
        pair = [self.put(f"s{i}", np.array(0.04, o.float_type))]
        if o.write_zero_point:
            pair.append(self.put_integer(f"z{i}", o.activations, np.array(o.zero_point)))
        self.node("QuantizeLinear", [x, *pair], f"q{i}")
        self.node("DequantizeLinear", [f"q{i}", *pair], f"d{i}")
        limit = 7 if o.weights == "int4" else 127
        self.put_integer(f"w{i}", o.weights, self.rng.integers(-limit, limit + 1, (o.channels, channels, 3, 3)))
        self.put(f"ws{i}", self.rng.uniform(0.5, 1.5, o.channels).astype(o.float_type) / (limit * channels))
        self.node("DequantizeLinear", [f"w{i}", f"ws{i}"], f"wd{i}", axis=0)
        self.node("Conv", [f"d{i}", f"wd{i}", self.bias(i)], f"c{i}", kernel_shape=[3, 3], pads=[1] * 4)
        self.node("Relu", [f"c{i}"], f"r{i}")
        return f"r{i}"

    def bias(self, i: int) -> str:
        if not self.options.int32_bias:
            return self.put(f"b{i}", self.rng.standard_normal(self.options.channels).astype(self.options.float_type))
        self.put_integer(f"bq{i}", "int32", self.rng.integers(-500, 500, self.options.channels))
        self.put(f"bs{i}", np.full(self.options.channels, 1e-3, self.options.float_type))
        self.node("DequantizeLinear", [f"bq{i}", f"bs{i}"], f"b{i}", axis=0)
        return f"b{i}"

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes))

    def put(self, name: str, array: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array, self.options.float_type), name))
        return name

    def put_integer(self, name: str, dtype: str, array: Array) -> str:
        kind = onnx.TensorProto.DataType.Value(dtype.upper())
        self.weights.append(helper.make_tensor(name, kind, array.shape, array.ravel().tolist()))
        return name


def to_half(model: ir.Model) -> ir.Model:
    """The same graph in FP16 throughout, as a strongly typed FP16 graph is."""
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def images(batch: int, dtype: type = np.float32) -> Array:
    return np.random.default_rng(batch).standard_normal((batch, 3, 8, 8)).astype(dtype)


def reference(model: ir.Model, batch: Array) -> dict[str, Array]:
    """The outputs by name, by onnx's reference evaluator."""
    proto = ir.to_proto(model)
    results = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: batch})
    return {value.name: result for value, result in zip(proto.graph.output, results, strict=True)}


def unknown_operator() -> ir.Model:
    """A graph with a node that no runtime knows."""
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="strange", domain="example.org")
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("example.org", 1)]
    graph = helper.make_graph([node], "unknown", [image], [result])
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def with_external_data(model: ir.Model, folder: Path) -> ir.Model:
    """The same model, its weights references into a file of ``folder``."""
    ir.save(model, folder / "source.onnx", external_data="source.data", size_threshold_bytes=0)
    return ir.load(folder / "source.onnx")
