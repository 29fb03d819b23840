"""Faults at the two ends of a network: its first and last layers, and the preprocessing, inside a graph or recorded."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from benchmarks.parity_graph import Array, Net
from rir_deploy.artifacts import METADATA_KEY
from rir_deploy.data.preprocess import Preprocessing

STEM, HEAD = ("stem.residual.norm", "stem.transient.norm"), "head.norm"


def _swapped(array: Array) -> Array:
    return np.concatenate([array[1:2], array[:1], array[2:]])


def swapped_classes(net: Net) -> None:
    for index in (1, 2):
        net.change(net.node(HEAD, "Conv"), _swapped, index)


def swapped_stems(net: Net) -> None:
    nodes = [net.node(module, "Conv") for module in STEM]
    for index in (1, 2):
        first, second = (net.array(node, index) for node in nodes)
        net.change(nodes[0], lambda _, new=second: new, index)
        net.change(nodes[1], lambda _, new=first: new, index)


def maximum_for_mean(net: Net) -> None:
    mean = net.node("head", "ReduceMean")
    mean.op_type = "ReduceMax"


def swapped_join(net: Net) -> None:
    concat = next(node for node in net.graph if node.op_type == "Concat")
    first, second = concat.inputs
    concat.replace_input_with(0, second)
    concat.replace_input_with(1, first)


def _stem(change: Callable[[Array], Array], index: int = 1) -> Callable[[Net], None]:
    return lambda net: net.change(net.node(STEM[0], "Conv"), change, index)


def _head(change: Callable[[Array], Array], index: int) -> Callable[[Net], None]:
    return lambda net: net.change(net.node(HEAD, "Conv"), change, index)


# Where each may be found. The joined streams belong to the last layer as much as to the head; and once folded, a
# channel that the head does not read cannot be told from one that the last layer does not compute.
END_FAULTS: dict[str, tuple[Callable[[Net], None], tuple[str, ...]]] = {
    "stem kernel transposed": (_stem(lambda w: w.transpose(0, 1, 3, 2)), ("stem",)),
    "stem bias missing": (_stem(np.zeros_like, 2), ("stem",)),
    "stem kernel off by 2 %": (_stem(lambda w: w * np.float32(1.02)), ("stem",)),
    "stems swapped": (swapped_stems, ("stem",)),
    "two classes swapped": (swapped_classes, ("head",)),
    "head bias missing": (_head(np.zeros_like, 2), ("head",)),
    "head kernel truncated": (
        _head(lambda w: np.where(np.arange(w.shape[1])[:, None, None] < 8, w, 0), 1),
        ("last", "head"),
    ),
    "maximum for mean": (maximum_for_mean, ("head",)),
    "streams joined in the wrong order": (swapped_join, ("last", "head")),
}


class Embedded(Net):
    """A graph that takes uint8 images: Cast, Transpose, Mul, Add."""

    def step(self, op_type: str) -> ir.Node:
        return next(node for node in self.graph if node.name == f"{self.graph.inputs[0].name}/{op_type}")


def _arithmetic(
    scale: Callable[[Array, Array, Array], Array], offset: Callable[[Array, Array, Array], Array]
) -> Callable[[Embedded, Preprocessing], None]:
    """From x * scale + offset of each channel to what is given by (old value, mean, deviation)."""

    def fault(net: Embedded, preprocessing: Preprocessing) -> None:
        mean, std = (np.array(x, np.float32).reshape(1, -1, 1, 1) for x in (preprocessing.mean, preprocessing.std))
        net.change(net.step("Mul"), lambda old: scale(old, mean, std))
        net.change(net.step("Add"), lambda old: offset(old, mean, std))

    return fault


def transposed(net: Embedded, _: Preprocessing) -> None:
    net.step("Transpose").attributes["perm"] = ir.AttrInt64s("perm", [0, 3, 2, 1])


def reinterpreted(net: Embedded, preprocessing: Preprocessing) -> None:
    """The bytes of N, H, W, C read as N, C, H, W."""
    transpose = net.step("Transpose")
    transpose.op_type = "Reshape"
    transpose.attributes.clear()
    transpose.resize_inputs(2)
    transpose.replace_input_with(1, net.constant(np.array([0, *preprocessing.input_shape])))


def _gathered(axis: int) -> Callable[[Embedded, Preprocessing], None]:
    def fault(net: Embedded, preprocessing: Preprocessing) -> None:
        indices = np.arange(preprocessing.input_shape[axis - 1])[::-1].copy()
        net.insert(net.step("Mul"), 0, "Gather", net.constant(indices), axis=axis)

    return fault


def resized_first(net: Embedded, _: Preprocessing) -> None:
    """Images brought to half of their size and back: a resize in a place where there is none to make."""
    multiply = net.step("Mul")
    net.insert(multiply, 0, "AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    _resize(net, multiply, np.array([1, 1, 2, 2], np.float32))


def cropped_first(net: Embedded, preprocessing: Preprocessing) -> None:
    """Resize and crop in the wrong order: a margin is cut off, and what is left is brought to size."""
    multiply = net.step("Mul")
    sides = np.array(preprocessing.input_shape[1:])
    ends = [net.constant(np.array(values)) for values in ([1, 1], sides - 1, [2, 3])]
    net.insert(multiply, 0, "Slice", *ends)
    # A little more than the quotient: its product with the side is rounded down.
    _resize(net, multiply, np.array([1, 1, *(sides / (sides - 2) + 1e-4)], np.float32))


def _resize(net: Embedded, node: ir.Node, scales: Array) -> None:
    net.insert(node, 0, "Resize", net.constant(np.array([], np.float32)), net.constant(scales), mode="linear")


def _keep(old: Array, _mean: Array, _std: Array) -> Array:
    return old


PREPROCESSING_FAULTS: dict[str, Callable[[Embedded, Preprocessing], None]] = {
    "pixels divided by 256": _arithmetic(lambda old, m, s: old * np.float32(255 / 256), _keep),
    "pixels not divided": _arithmetic(lambda old, m, s: old * 255, _keep),
    "mean not subtracted": _arithmetic(_keep, lambda old, m, s: old * 0),
    "mean added": _arithmetic(_keep, lambda old, m, s: -old),
    "mean of the 0..255 scale": _arithmetic(_keep, lambda old, m, s: old * 255),
    "deviation left out": _arithmetic(lambda old, m, s: old * s, lambda old, m, s: old * s),
    "deviation multiplied": _arithmetic(lambda old, m, s: old * s * s, lambda old, m, s: old * s * s),
    "mean and deviation swapped": _arithmetic(lambda old, m, s: old * s / m, lambda old, m, s: -s / m),
    "pixels inverted": _arithmetic(lambda old, m, s: -old, lambda old, m, s: (1 - m) / s),
    "height and width swapped": transposed,
    "images upside down": _gathered(2),
    "images mirrored": _gathered(3),
    "BGR for RGB": _gathered(1),
    "channels last read as channels first": reinterpreted,
    "resized to half and back": resized_first,
    "cropped before it is resized": cropped_first,
}
_COLOUR = {"BGR for RGB", "channels last read as channels first"}

RECORD_FAULTS = (
    "recorded mean and deviation swapped",
    "recorded mean of another data set",
    "recorded resize another",
)


def preprocessing_faults(preprocessing: Preprocessing) -> list[str]:
    """Those that change something for such images."""
    return [name for name in PREPROCESSING_FAULTS if preprocessing.channels > 1 or name not in _COLOUR]


def record(model: ir.Model, name: str) -> ir.Model:
    """A copy of a graph that records another preprocessing."""
    changed = model.clone()
    data = json.loads(changed.metadata_props[METADATA_KEY])
    table = data["recipe"]["preprocess"]
    if name == "recorded mean and deviation swapped":
        table["mean"], table["std"] = table["std"], table["mean"]
    elif name == "recorded mean of another data set":
        table["mean"] = [0.5] * len(table["mean"])
    else:
        table["resize"] = "bilinear"
    changed.metadata_props[METADATA_KEY] = json.dumps(data)
    return changed
