"""The graphs on which a machine's ceilings are measured: chains of convolutions with nothing around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import unknown_name
from rir_deploy.roofline.shapes import Shape

PRECISIONS = ("fp32", "fp16", "int8")
_OPSET = 17
# Activations of about this size come out of every convolution, whatever its width, so that none becomes denormal.
_SCALE = 0.05


def chain_graph(shape: Shape, precision: str) -> ir.Model:
    """The chain as a model with one input and one output; the same arguments give the same bytes.

    "int8" is Q/DQ in the flavour that CPUs fuse: uint8 activations, int8 weights with a scale a channel, int32 bias.
    Input and output are uint8, so that nothing but convolutions is timed.

    Raises:
        UsageError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    writer = _Quantized() if precision == "int8" else _Floating(np.float16 if precision == "fp16" else np.float32)
    value = writer.begin()
    for index in range(shape.repeats):
        value = writer.conv(shape, value, index)
    kind = writer.kind
    image = helper.make_tensor_value_info("x", kind, [shape.batch, shape.channels_in, *shape.size])
    output = helper.make_tensor_value_info(value, kind, [shape.batch, shape.channels_out, *shape.output_size])
    graph = helper.make_graph(writer.nodes, "chain", [image], [output], writer.weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


class _Writer:
    """Nodes and weights as they come; random numbers from one seed."""

    kind: int

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def begin(self) -> str:
        return "x"

    def conv(self, shape: Shape, value: str, index: int) -> str:
        raise NotImplementedError

    def _store(self, name: str, array: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes))
        return output

    def _convolve(self, shape: Shape, inputs: list[str], output: str) -> str:
        top, left = (side // 2 for side in shape.kernel)
        conv = self._node(
            "Conv",
            inputs,
            f"{output}_conv",
            kernel_shape=list(shape.kernel),
            strides=list(shape.stride),
            pads=[top, left, top, left],
            group=shape.groups,
        )
        return self._node("Relu", [conv], output)


class _Floating(_Writer):
    def __init__(self, dtype: type[np.floating]) -> None:
        super().__init__()
        self._dtype = dtype
        self.kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def conv(self, shape: Shape, value: str, index: int) -> str:
        sizes = (shape.channels_out, shape.channels_in // shape.groups, *shape.kernel)
        # He's initialisation: the variance of the activations stays what it is.
        weight = self.random.standard_normal(sizes) * np.sqrt(2 / np.prod(sizes[1:]))
        inputs = [value, self._store(f"w{index}", weight.astype(self._dtype))]
        inputs.append(self._store(f"b{index}", np.full(shape.channels_out, _SCALE, self._dtype)))
        return self._convolve(shape, inputs, f"y{index}")


class _Quantized(_Writer):
    kind = TensorProto.UINT8

    def begin(self) -> str:
        self._store("scale", np.array(_SCALE, np.float32))
        self._store("zero", np.array(0, np.uint8))
        return "x"

    def conv(self, shape: Shape, value: str, index: int) -> str:
        sizes = (shape.channels_out, shape.channels_in // shape.groups, *shape.kernel)
        weight = self.random.integers(-127, 128, sizes, dtype=np.int8)
        steps = np.full(shape.channels_out, 1 / (90 * np.sqrt(np.prod(sizes[1:]))), np.float32)
        image = self._node("DequantizeLinear", [value, "scale", "zero"], f"x{index}_float")
        kernel = self._integers(f"w{index}", weight, steps)
        bias = np.full(shape.channels_out, 100, np.int32)
        output = self._convolve(shape, [image, kernel, self._integers(f"b{index}", bias, steps * _SCALE)], f"r{index}")
        return self._node("QuantizeLinear", [output, "scale", "zero"], f"y{index}")

    def _integers(self, name: str, array: NDArray[np.integer], steps: NDArray[np.floating]) -> str:
        zeros = np.zeros(len(steps), array.dtype)
        parameters = [self._store(f"{name}_scale", steps.astype(np.float32)), self._store(f"{name}_zero", zeros)]
        return self._node("DequantizeLinear", [self._store(name, array), *parameters], f"{name}_float", axis=0)
