"""The rule of ops that treat every channel alike and alone: activations and pooling."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm, extent_of
from rir_deploy.fold.attributes import int_of, ints_of, string_of
from rir_deploy.fold.forms import Affine, ChannelwiseOp, Extents, extents_after
from rir_deploy.fold.kernels import Kernel, convolution

POINTWISE = frozenset(
    {
        *("Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu"),
        *("Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
    }
)
POOLING = frozenset({"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"})


def channelwise(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    constants = [nf.constants.get(value) for value in node.inputs[1:]]
    if form is None or any(not segment.terms for segment in form.segments):
        return None
    if any(a is None and v is not None for a, v in zip(constants, node.inputs[1:], strict=True)):
        return None
    if any(a is not None and a.size > 1 for a in constants) or len(node.outputs) != 1:
        return None
    if any(value is not None and value.const_value is None for value in node.inputs[1:]):
        return None  # the op is written with its old constants, which must not hang on nodes that may go
    # A constant that is not there (Clip without a minimum) differs from every constant that is.
    raw = tuple(b"" if a is None else a.dtype.str.encode() + a.tobytes() for a in constants)
    attributes = tuple(sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()))
    op = ChannelwiseOp(node.op_type, attributes, raw, node)
    pooling = _averaging(node, form.axes)
    if pooling is None:
        return nf.channelwise(op, form, _channelwise_extents(node, op, form), node.outputs[0])
    result = nf.channelwise(op, form, extents_after(form.extents, pooling), node.outputs[0])
    for segment in result.segments:
        source = segment.terms[0].source
        source.pooling = replace(pooling, weight=np.repeat(pooling.weight, segment.rows, axis=0), groups=segment.rows)
    return result


def _averaging(node: ir.Node, axes: int) -> Kernel | None:
    """The convolution of one channel that an AveragePool is, where it is one: every window averages as many numbers."""
    if node.op_type != "AveragePool" or int_of(node, "ceil_mode", 0):
        return None
    taps, pads = ints_of(node, "kernel_shape", ()), ints_of(node, "pads", (0,) * (2 * axes))
    auto_pad = string_of(node, "auto_pad", "NOTSET")
    if auto_pad == "VALID":
        pads = (0,) * (2 * axes)
    elif auto_pad != "NOTSET" or (any(pads) and not int_of(node, "count_include_pad", 0)):
        return None
    weight = np.full((1, 1, *taps), 1.0 / prod(taps))
    return convolution(weight, ints_of(node, "strides", (1,) * axes), pads, ints_of(node, "dilations", (1,) * axes), 1)


def _channelwise_extents(node: ir.Node, op: ChannelwiseOp, form: Affine) -> Extents:
    if node.op_type in POINTWISE:
        return form.extents
    if node.op_type.startswith("Global"):
        return (1,) * form.axes
    output = node.outputs[0]
    sizes = [extent_of(output, axis) for axis in range(2, form.axes + 2)] if output.shape is not None else []
    if sizes and all(isinstance(size, int) for size in sizes):
        return tuple(sizes)
    # Symbolic: equal ops on equal lengths give equal lengths.
    return tuple(((op.op_type, op.attributes, form.extents, axis), 1, 0) for axis in range(form.axes))
