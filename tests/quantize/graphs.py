"""Tiny networks in the shapes that the quantiser meets, and what tests need to run and look at them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from rir_deploy.quantize import RangeOptions, RangeTable, Sources, activation_names, collect_ranges, mark_outputs
from tests.fold.graphs import Writer

Array = NDArray[np.float32]
SOURCES = Sources("a" * 64, "b" * 64, "c" * 64)


def writer(seed: int = 0, opset: int = 18) -> Writer:
    return Writer(seed, opset, np.float32)


def end(w: Writer, x: str, classes: int = 5, size: int = 4) -> ir.Model:
    """A 1x1 convolution, the average over all pixels and a change of shape."""
    scores = w.conv(x, classes, 1, bias=True)
    mean = w.op("AveragePool", [scores], classes, kernel_shape=[size, size])
    return w.model(w.op("Reshape", [mean, w.constant(np.array([0, -1]))], classes))


def chain() -> ir.Model:
    """What a fold leaves: conv_0 relu_1 conv_2 relu_3 conv_4 averagepool_5 reshape_6; the second steps by 2."""
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.relu(w.conv(x, 16, bias=True, strides=[2, 2]))
    return end(w, x)


def residual() -> ir.Model:
    """conv_0 relu_1; conv_2 + relu_1 = add_3, relu_4; conv_5 (3x3) + conv_6 (1x1) = add_7, relu_8; the end."""
    w = writer(1)
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    x = w.relu(w.add(w.conv(x, 8, bias=True), x))
    main = w.conv(x, 8, bias=True)
    x = w.relu(w.add(main, w.conv(x, 8, 1, bias=True)))
    return end(w, x, size=8)


def two_streams() -> ir.Model:
    """One RiR block as it is traced: r, t = relu_1, relu_3; BN behind the sums of four convolutions and the skip."""
    w = writer(2)
    x = w.input(3)
    r, t = w.relu(w.conv(x, 8, bias=True)), w.relu(w.conv(x, 8, bias=True))
    cross, through, pass_r, pass_t = w.conv(r, 8), w.conv(t, 8), w.conv(r, 8), w.conv(t, 8)
    new_r = w.relu(w.bn(w.add(pass_r, r, through)))
    new_t = w.relu(w.bn(w.add(pass_t, cross)))
    return end(w, w.concat(new_r, new_t), size=8)


def batches(count: int = 4, size: int = 8, channels: int = 3) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal((4, channels, size, size)).astype(np.float32) for _ in range(count)]


def session(model: ir.Model, optimized: str | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = optimized
    proto = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, batch: NDArray[np.generic]) -> Array:
    opened = session(model)
    (result, *_) = opened.run(None, {opened.get_inputs()[0].name: batch})
    return result


def calibrate(model: ir.Model, data: list[Array] | None = None, options: RangeOptions = RangeOptions()) -> RangeTable:
    opened = session(mark_outputs(model, activation_names(model)))
    names = [value.name for value in opened.get_outputs()]
    source = opened.get_inputs()[0].name
    data = batches() if data is None else data

    def forward(batch: Array) -> dict[str, Array]:
        return dict(zip(names, opened.run(None, {source: batch}), strict=True))

    return collect_ranges(data, forward, source, SOURCES, options)


def sqnr_db(reference: Array, other: Array) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


def array(value: ir.Value | None) -> NDArray[np.generic]:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def edges(model: ir.Model) -> list[str]:
    """The graph in words, weights left out: "Conv(x_dequantized) -> conv_0", for asserting a placement."""
    lines = []
    for node in model.graph:
        read = [str(v.name) for v in node.inputs if v is not None and v.const_value is None]
        if read and not all(name.endswith("weight") for name in read):
            lines.append(f"{node.op_type}({', '.join(read)}) -> {node.outputs[0].name}")
    return lines
