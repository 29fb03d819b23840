"""The rule of ops that treat every channel alike and alone: activations and pooling."""

from __future__ import annotations

import onnx_ir as ir

from rir_deploy.fold.affine import NormalForm, extent_of
from rir_deploy.fold.forms import Affine, ChannelwiseOp, Extents

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
    # A constant that is not there (Clip without a minimum) differs from every constant that is.
    raw = tuple(b"" if a is None else a.dtype.str.encode() + a.tobytes() for a in constants)
    attributes = tuple(sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()))
    op = ChannelwiseOp(node.op_type, attributes, raw, node)
    return nf.channelwise(op, form, _channelwise_extents(node, op, form), node.outputs[0])


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
