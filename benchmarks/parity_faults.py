"""Faults of an FP32 graph: what exporters, folds and hand-written converters get wrong, one at a time.

Each takes a traced graph and a block, and changes that block. `FAULTS` maps a name to the change; `applies` says
where it makes sense.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from benchmarks.parity_graph import Array, Net

Fault = Callable[[Net, str], None]
RR, TR, RT, TT = "residual_to_residual", "transient_to_residual", "residual_to_transient", "transient_to_transient"
# The scale, shift, mean and variance of a BatchNormalization.
GAMMA, BETA, MEAN, VARIANCE = 1, 2, 3, 4


def _kernel(change: Callable[[Array], Array], branch: str = RR) -> Fault:
    return lambda net, block: net.change(net.conv(block, branch), change)


def _norm(change: Callable[[Array], Array], index: int) -> Fault:
    return lambda net, block: net.change(net.norm(block), change, index)


def _attribute(name: str, values: list[int]) -> Fault:
    def fault(net: Net, block: str) -> None:
        net.conv(block, RR).attributes[name] = ir.AttrInt64s(name, values)

    return fault


def missing_shortcut(net: Net, block: str) -> None:
    add = net.shortcut_add(block)
    net.bypass(add, add.inputs[0])


def doubled_shortcut(net: Net, block: str) -> None:
    net.insert(net.shortcut_add(block), 1, "Mul", net.constant(np.array(2, np.float32)))


def subtracted_shortcut(net: Net, block: str) -> None:
    net.insert(net.shortcut_add(block), 1, "Neg")


def shortcut_of_the_other_stream(net: Net, block: str) -> None:
    add, transient = net.shortcut_add(block), net.conv(block, TT).inputs[0]
    shortcut = add.inputs[1]
    assert shortcut is not None
    node = shortcut.producer()
    if node is not None and node.op_type == "Conv":
        node.replace_input_with(0, transient)
    else:
        add.replace_input_with(1, transient)


def shortcut_of_the_sum(net: Net, block: str) -> None:
    """The branches added twice: the shortcut reads what it is added to."""
    add = net.shortcut_add(block)
    add.replace_input_with(1, add.inputs[0])


def relu_before_the_shortcut(net: Net, block: str) -> None:
    net.insert(net.shortcut_add(block), 0, "Relu")


def swapped_streams(net: Net, block: str) -> None:
    residual, transient = net.conv(block, RR).inputs[0], net.conv(block, TR).inputs[0]
    for branch, source in ((RR, transient), (RT, transient), (TR, residual), (TT, residual)):
        net.conv(block, branch).replace_input_with(0, source)


def swapped_cross_kernels(net: Net, block: str) -> None:
    first, second = net.conv(block, TR), net.conv(block, RT)
    a, b = net.array(first), net.array(second)
    net.change(first, lambda _: b)
    net.change(second, lambda _: a)


def missing_cross_branch(net: Net, block: str) -> None:
    net.change(net.conv(block, RT), np.zeros_like)


def kernel_of_another_branch(net: Net, block: str) -> None:
    other = net.array(net.conv(block, TT))
    net.change(net.conv(block, RR), lambda _: other)


def wrong_epsilon(net: Net, block: str) -> None:
    net.norm(block).attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-3)


def swapped_norm(first: int, second: int) -> Fault:
    def fault(net: Net, block: str) -> None:
        a, b = net.array(net.norm(block), first), net.array(net.norm(block), second)
        net.change(net.norm(block), lambda _: b, first)
        net.change(net.norm(block), lambda _: np.abs(a) + 1e-3 if second == VARIANCE else a, second)

    return fault


def norms_of_the_other_stream(net: Net, block: str) -> None:
    for index in (GAMMA, BETA, MEAN, VARIANCE):
        other = net.array(net.norm(block, "transient"), index)
        net.change(net.norm(block), lambda _, other=other: other, index)


def missing_norm(net: Net, block: str) -> None:
    net.bypass(net.norm(block), net.norm(block).inputs[0])


def missing_relu(net: Net, block: str) -> None:
    net.bypass(net.relu(block), net.relu(block).inputs[0])


def other_activation(op_type: str, *bounds: float, **attributes: object) -> Fault:
    def fault(net: Net, block: str) -> None:
        relu = net.relu(block)
        new = net.insert(relu, 0, op_type, *(net.constant(np.array(x, np.float32)) for x in bounds), **attributes)
        net.bypass(relu, new.outputs[0])

    return fault


def edge_padding(net: Net, block: str) -> None:
    conv = net.conv(block, RR)
    net.insert(conv, 0, "Pad", net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="edge")
    conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])


def shortcut_phase(net: Net, block: str) -> None:
    """Odd pixels in place of even ones."""
    conv = net.node(f"{block}.shortcut.conv", "Conv")
    bounds = ([1, 1], [2**31, 2**31], [2, 3])
    net.insert(conv, 0, "Slice", *(net.constant(np.array(values)) for values in bounds))


def _one_channel(factor: float) -> Callable[[Array], Array]:
    """The channel with the largest kernel, so that it is one that matters."""

    def change(weight: Array) -> Array:
        result = weight.copy()
        result[np.abs(weight).sum(axis=(1, 2, 3)).argmax()] *= factor
        return result

    return change


def _truncated(weight: Array) -> Array:
    """The file ended after half of it."""
    flat = weight.reshape(-1).copy()
    flat[flat.size // 2 :] = 0
    return flat.reshape(weight.shape)


def _four_bits(weight: Array) -> Array:
    step = np.abs(weight).max() / 7
    return np.round(weight / step) * step


def _bfloat16(weight: Array) -> Array:
    return (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)


def _bit_flip(weight: Array) -> Array:
    """The exponent of the largest weight, two bits up."""
    flat = weight.reshape(-1).copy()
    flat[np.abs(flat).argmax()] *= 16
    return flat.reshape(weight.shape)


FAULTS: dict[str, Fault] = {
    "shortcut missing": missing_shortcut,
    "shortcut doubled": doubled_shortcut,
    "shortcut subtracted": subtracted_shortcut,
    "shortcut of the other stream": shortcut_of_the_other_stream,
    "shortcut of the sum itself": shortcut_of_the_sum,
    "relu before the shortcut": relu_before_the_shortcut,
    "streams swapped": swapped_streams,
    "cross kernels swapped": swapped_cross_kernels,
    "cross branch missing": missing_cross_branch,
    "kernel of another branch": kernel_of_another_branch,
    "batch norm epsilon 1e-3": wrong_epsilon,
    "running variance stale": _norm(np.ones_like, VARIANCE),
    "running mean stale": _norm(np.zeros_like, MEAN),
    "batch norm scale missing": _norm(np.ones_like, GAMMA),
    "batch norm shift missing": _norm(np.zeros_like, BETA),
    "running mean and variance swapped": swapped_norm(MEAN, VARIANCE),
    "batch norm scale and shift swapped": swapped_norm(GAMMA, BETA),
    "batch norm of the other stream": norms_of_the_other_stream,
    "batch norm missing": missing_norm,
    "kernel transposed": _kernel(lambda w: w.transpose(0, 1, 3, 2)),
    "kernel flipped": _kernel(lambda w: w[:, :, ::-1, ::-1]),
    "kernel with inputs for outputs": _kernel(lambda w: w.transpose(1, 0, 2, 3)),
    "output channels rotated": _kernel(lambda w: np.roll(w, 1, axis=0)),
    "input channels rotated": _kernel(lambda w: np.roll(w, 1, axis=1)),
    "kernel negated": _kernel(np.negative),
    "kernel off by 2 %": _kernel(lambda w: w * np.float32(1.02)),
    "one channel off by 5 %": _kernel(_one_channel(1.05)),
    "one dead channel": _kernel(_one_channel(0.0)),
    "truncated weight": _kernel(_truncated),
    "weight of 4 bits": _kernel(_four_bits),
    "weight truncated to bfloat16": _kernel(_bfloat16),
    "bit flip in a weight": _kernel(_bit_flip),
    "transient kernel transposed": _kernel(lambda w: w.transpose(0, 1, 3, 2), TT),
    "relu missing": missing_relu,
    "leaky relu": other_activation("LeakyRelu", alpha=0.01),
    "relu with a ceiling of 1": other_activation("Clip", 0.0, 1.0),
    "dilated kernel": _attribute("dilations", [2, 2]),
    "padding at one side": _attribute("pads", [0, 0, 2, 2]),
    "edge padding": edge_padding,
    "stride phase of a convolution": _attribute("pads", [0, 0, 1, 1]),
    "stride phase of the shortcut": shortcut_phase,
}
_STRIDED = {"stride phase of a convolution", "stride phase of the shortcut"}
_UNSTRIDED = {"dilated kernel", "padding at one side", "edge padding"}
_SQUARE = {"kernel with inputs for outputs"}


def applies(name: str, net: Net, block: str) -> bool:
    """Whether a fault can be put into a block."""
    strided = net.is_strided(block)
    rows, columns = net.array(net.conv(block, RR)).shape[:2]
    if name in _STRIDED:
        return strided
    return not (strided and name in _UNSTRIDED) and not (rows != columns and name in _SQUARE)


def inject(model: ir.Model, name: str, block: str) -> ir.Model:
    """A copy of a traced graph with one fault in one block."""
    net = Net(model)
    FAULTS[name](net, block)
    if name == "dilated kernel":
        net.conv(block, RR).attributes["pads"] = ir.AttrInt64s("pads", [2, 2, 2, 2])
    return net.model
