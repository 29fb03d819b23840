"""One small rule an op. The table at the end is all that the fold knows of ONNX."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.fold import rules_border
from rir_deploy.fold.affine import NormalForm, RefusalError, Rule
from rir_deploy.fold.attributes import float_of, int_of
from rir_deploy.fold.forms import Affine, offset_form, scale_form
from rir_deploy.fold.kernels import Array
from rir_deploy.fold.rules_channelwise import POINTWISE, POOLING, channelwise
from rir_deploy.fold.rules_conv import conv
from rir_deploy.fold.rules_layout import concat, pad, slice_channels, split
from rir_deploy.fold.sums import add_forms


def _batch_normalization(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    if form is None:
        return None
    if _is_training(nf, node):
        raise RefusalError("it is in training mode: its statistics are computed from the batch; export in eval mode")
    parameters = [nf.constants.get(value) for value in node.inputs[1:5]]
    if any(p is None for p in parameters):
        raise RefusalError("its parameters are not constants")
    gamma, beta, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
    if any(p.shape != (form.channels,) for p in (gamma, beta, mean, variance)):
        raise RefusalError(f"it normalises {gamma.size} channels where its input has {form.channels}")
    # The attribute is stored in 32 bits; widening it here is what a runtime does too.
    spread = variance + float_of(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        raise RefusalError("it divides by the root of a variance that is not above zero")
    scale = gamma / np.sqrt(spread)
    return scale_form(form, scale, beta - mean * scale)


def _is_training(nf: NormalForm, node: ir.Node) -> bool:
    """By attribute, or before opset 14 by having outputs for statistics, whether anything reads them or not."""
    named = [value for value in node.outputs[1:] if value.name and (nf.opset < 14 or nf.uses(value))]
    return bool(named) or int_of(node, "training_mode", 0) != 0


def _sum(nf: NormalForm, node: ir.Node) -> Affine | None:
    result: Affine | None = None
    offset: float | Array = 0.0
    constants: list[NDArray[np.generic]] = []
    for position, value in enumerate(node.inputs):
        form = nf.operand(value)
        if form is None:
            array = nf.constants.get(value)
            if array is None:
                return None
            constants.append(np.negative(array) if node.op_type == "Sub" and position == 1 else array)
            continue
        if node.op_type == "Sub" and position == 1:
            form = scale_form(form, -np.ones(form.channels), np.zeros(form.channels))
        if result is None:
            result = form
        elif not _same_shape(result, form):
            return None
        else:
            result = add_forms(result, form)
    for array in constants:
        vector = None if result is None else channel_vector(array, result)
        if vector is None:
            return None
        offset = offset + vector
    if result is None:
        return None
    return offset_form(result, np.broadcast_to(offset, (result.channels,)))


def _same_shape(a: Affine, b: Affine) -> bool:
    """Whether an elementwise op of two maps is known to broadcast nothing.

    Raises:
        RefusalError: their sizes may be equal or not, depending on the input.
    """
    batches = a.batches | b.batches
    if a.channels != b.channels or len({size for size in batches if isinstance(size, int)}) > 1:
        return False
    pairs = [pair for pair in zip(a.extents, b.extents, strict=False) if pair[0] != pair[1]]
    if a.axes != b.axes or any(1 in pair or all(isinstance(size, int) for size in pair) for pair in pairs):
        return False
    if len(batches) > 1 or pairs:
        raise RefusalError("it adds tensors whose sizes are not known to be equal; export with fixed or named sizes")
    return True


def _product(nf: NormalForm, node: ir.Node) -> Affine | None:
    left, right = node.inputs[:2]
    form, factor = nf.operand(left), nf.constants.get(right)
    if form is None and node.op_type == "Mul":
        form, factor = nf.operand(right), nf.constants.get(left)
    vector = None if form is None else channel_vector(factor, form)
    if form is None or vector is None:
        return None
    if node.op_type == "Div":
        if not vector.all():
            raise RefusalError("it divides by zero")
        vector = 1.0 / vector
    return scale_form(form, vector, np.zeros(form.channels))


def _negation(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    return None if form is None else scale_form(form, -np.ones(form.channels), np.zeros(form.channels))


def _identity(nf: NormalForm, node: ir.Node) -> Affine | None:
    if node.inputs[0] in nf.views:
        nf.views[node.outputs[0]] = nf.views[node.inputs[0]]
    return nf.operand(node.inputs[0])


def _dropout(nf: NormalForm, node: ir.Node) -> Affine | None:
    form = nf.operand(node.inputs[0])
    mode = nf.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())
    if form is not None and (mode is None or bool(np.any(mode))):
        raise RefusalError("it is in training mode; export in eval mode")
    mask_used = len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return None if mask_used else form


def channel_vector(array: NDArray[np.generic] | None, form: Affine) -> Array | None:
    """A constant that is one number a channel (or one for all), as float64 [channels]; else None."""
    if array is None:
        return None
    rank = form.axes + 2
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[0] != 1 or any(size != 1 for size in shape[2:]) or shape[1] not in (1, form.channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (form.channels,))


def _refuse(reason: str) -> Rule:
    def rule(nf: NormalForm, node: ir.Node) -> Affine | None:
        raise RefusalError(reason)

    return rule


RULES: dict[str, Rule] = {
    "Conv": conv,
    "BatchNormalization": _batch_normalization,
    "Add": _sum,
    "Sub": _sum,
    "Sum": _sum,
    "Mul": _product,
    "Div": _product,
    "Neg": _negation,
    "Identity": _identity,
    "Dropout": _dropout,
    "Concat": concat,
    "Split": split,
    "Slice": slice_channels,
    "Pad": pad,
    "ScatterND": rules_border.scatter,
    "Transpose": rules_border.transpose,
    "Expand": rules_border.expand,
    **dict.fromkeys(sorted(POINTWISE | POOLING), channelwise),
    **dict.fromkeys(("ConvInteger", "QLinearConv"), _refuse("it computes in integers; fold before quantising")),
    **dict.fromkeys(("If", "Loop", "Scan"), _refuse("it is control flow: what is inside stays as it is")),
}
