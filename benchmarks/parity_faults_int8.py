"""Faults of a quantised graph: what calibration, Q/DQ writers and integer kernels get wrong, one at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.parity_graph import MODULE_KEY, Net

Fault = Callable[["Quantized", str], None]
SCALE, ZERO_POINT = 1, 2


class Quantized(Net):
    """A folded and quantised graph: one convolution a block."""

    def block_conv(self, block: str) -> ir.Node:
        return self.node(block, "Conv")

    def weight(self, block: str) -> ir.Node:
        """The DequantizeLinear of a block's weight."""
        return _producer(self.block_conv(block), 1)

    def pair(self, block: str) -> tuple[ir.Node, ir.Node]:
        """The QuantizeLinear and DequantizeLinear of a block's result; of "input", those of the images."""
        value = self.graph.inputs[0] if block == "input" else self.node(block, "Relu").outputs[0]
        cast = next((use.node for use in value.uses() if use.node.op_type == "Cast"), None)
        value = value if cast is None else cast.outputs[0]  # where what is not quantised computes in FP16
        quantize = next(use.node for use in value.uses() if use.node.op_type == "QuantizeLinear")
        return quantize, next(iter(quantize.outputs[0].uses())).node

    def blocks(self) -> list[str]:
        modules = [n.metadata_props.get(MODULE_KEY, "") for n in self.graph if n.op_type == "Relu"]
        return [module for module in modules if module.startswith("layers.")]


def _producer(node: ir.Node, index: int) -> ir.Node:
    value = node.inputs[index]
    assert value is not None
    producer = value.producer()
    assert producer is not None
    return producer


def _range(factor: float) -> Fault:
    def fault(net: Quantized, block: str) -> None:
        for node in net.pair(block):
            net.change(node, lambda scale: scale * np.float32(factor), SCALE)

    return fault


def _integers(change: Callable[[NDArray[np.int8]], NDArray[np.generic]]) -> Fault:
    return lambda net, block: net.change(net.weight(block), change, 0)  # type: ignore[arg-type]


def _scales(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Fault:
    return lambda net, block: net.change(net.weight(block), change, SCALE)


def other_zero_point(net: Quantized, block: str) -> None:
    net.change(net.pair(block)[1], lambda zero: np.asarray(zero.astype(np.int32) + 16), ZERO_POINT)


def other_scale_behind(net: Quantized, block: str) -> None:
    net.change(net.pair(block)[1], lambda scale: scale * np.float32(1.5), SCALE)


def wrong_axis(net: Quantized, block: str) -> None:
    net.weight(block).attributes["axis"] = ir.AttrInt64("axis", 1)


def _two_complement(integers: NDArray[np.int8]) -> NDArray[np.int8]:
    return np.asarray((integers.view(np.uint8) ^ 0x80).view(np.int8))


def _bias(change: Callable[[NDArray[np.float32]], NDArray[np.float32]], index: int) -> Fault:
    """The bias, whether it is dequantised (for CPUs) or a float (for TensorRT)."""

    def fault(net: Quantized, block: str) -> None:
        conv = net.block_conv(block)
        value = conv.inputs[2]
        assert value is not None
        producer = value.producer()
        net.change(*((conv, change, 2) if producer is None else (producer, change, index)))

    return fault


def integers_of_another_layer(net: Quantized, block: str) -> None:
    shape = net.array(net.weight(block), 0).shape
    twin = next(b for b in net.blocks() if b != block and net.array(net.weight(b), 0).shape == shape)
    other = net.array(net.weight(twin), 0)
    net.change(net.weight(block), lambda _: other, 0)


def _dead_channel(integers: NDArray[np.int8]) -> NDArray[np.int8]:
    result = integers.copy()
    result[np.abs(integers.astype(np.int32)).sum(axis=(1, 2, 3)).argmax()] = 0
    return result


FAULTS: dict[str, Fault] = {
    "range saturated at a sixteenth": _range(1 / 16),
    "range 16 times too wide": _range(16.0),
    "zero point off by 16": other_zero_point,
    "scales of Q and DQ differ by half": other_scale_behind,
    "weight scales of the neighbour": _scales(lambda s: np.roll(s, 1)),
    "one weight scale for all channels": _scales(lambda s: np.full_like(s, s.max())),
    "weight scales along the wrong axis": wrong_axis,
    "weights saturated at 32": _integers(lambda w: np.clip(w, -32, 32)),
    "weights with a zero point of 16": _integers(lambda w: np.clip(w.astype(np.int32) + 16, -128, 127)),
    "weights in the wrong complement": _integers(_two_complement),
    "weights of 4 bits": _integers(lambda w: w & -16),
    "weights transposed": _integers(lambda w: w.transpose(0, 1, 3, 2)),
    "weight channels rotated": _integers(lambda w: np.roll(w, 1, axis=0)),
    "one dead weight channel": _integers(_dead_channel),
    "integers of another layer": integers_of_another_layer,
    "bias scale doubled": _bias(lambda b: b * 2, SCALE),
    "bias missing": _bias(np.zeros_like, 0),
}


def applies(name: str, net: Quantized, block: str) -> bool:
    """Whether a fault can be put into a block."""
    shapes = {one: net.array(net.weight(one), 0).shape for one in net.blocks()}
    if name == "weight scales along the wrong axis":
        return shapes[block][0] == shapes[block][1]
    return name != "integers of another layer" or list(shapes.values()).count(shapes[block]) > 1


def inject(model: ir.Model, name: str, block: str) -> ir.Model:
    """A copy of a quantised graph with one fault in one block ("input": the images' own quantiser)."""
    net = Quantized(model)
    FAULTS[name](net, block)
    return net.model
