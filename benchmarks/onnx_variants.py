"""A model of ONNX's backend suite in the surroundings that the fold looks at: behind a sum, between two branches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from rir_deploy.graph.normalize import normalize

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}
NEWEST = 21
# The weights of the two branches; their sum is about the identity, so that what a model takes it goes on taking.
PARTS = (0.6, 0.4)


@dataclass(frozen=True)
class Variant:
    """``outputs`` are compared by number: a variant may give more of them than the suite's data has."""

    name: str
    model: onnx.ModelProto


def variants(model: onnx.ModelProto) -> Iterator[Variant]:
    """Each as it is, and with every size of its inputs declared as dynamic."""
    shapes: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto | None]] = {
        "as shipped": lambda given: given,
        "opset raised": opset_raised,
        "behind a sum": behind_a_sum,
        "on two branches": on_two_branches,
    }
    for name, make in shapes.items():
        try:
            made = make(model)
        except Exception:  # onnx's converter and compose refuse what they do not know
            made = None
        if made is not None:
            yield Variant(f"{name}, static", made)
            yield Variant(f"{name}, dynamic", dynamic(made))


def opset_raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    current = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), NEWEST)
    return version_converter.convert_version(model, NEWEST) if 7 <= current < NEWEST else None


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Sizes without a number; those of values inside are not declared at all."""
    copy = copied(model)
    names = itertools.count()
    weights = {tensor.name for tensor in copy.graph.initializer}
    for value in (*copy.graph.input, *copy.graph.output):
        if value.name not in weights:
            for dim in value.type.tensor_type.shape.dim:
                dim.dim_param = f"size{next(names)}"
    del copy.graph.value_info[:]
    return copy


def behind_a_sum(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The first float input is the sum of two branches that read what was the input."""
    chosen = float_input(model)
    if chosen is None or model.functions:
        return None
    copy = copied(model)
    name = chosen.name
    for node in copy.graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = f"{name}/sum"
    if any(attribute.HasField("g") for node in copy.graph.node for attribute in node.attribute):
        return None  # what is inside may read the input by its name
    nodes, weights = branches(chosen, opset_of(model))
    nodes.append(helper.make_node("Add", [f"{name}/0", f"{name}/1"], [f"{name}/sum"]))
    after = list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend([*nodes, *after])
    copy.graph.initializer.extend(weights)
    return copy


def on_two_branches(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model twice, each behind a branch of its own, and the sums of what both give."""
    chosen = float_input(model)
    if chosen is None or model.functions or opset_of(model) < 7:
        return None
    name = chosen.name
    twins = [compose.add_prefix(copied(model), f"{side}/") for side in "ab"]
    copy = copied(twins[0])
    copy.graph.node.extend(twins[1].graph.node)
    copy.graph.initializer.extend(twins[1].graph.initializer)
    shared = {tensor.name for tensor in model.graph.initializer}
    nodes, weights = branches(chosen, opset_of(model))
    for side, branch in zip("ab", ("0", "1"), strict=True):
        nodes.append(helper.make_node("Identity", [f"{name}/{branch}"], [f"{side}/{name}"]))
        for value in model.graph.input:
            if value.name != name and value.name not in shared:
                nodes.append(helper.make_node("Identity", [value.name], [f"{side}/{value.name}"]))
    inside = list(copy.graph.node)
    del copy.graph.node[:], copy.graph.input[:], copy.graph.output[:], copy.graph.value_info[:]
    ends, outputs = together(model)
    copy.graph.node.extend([*nodes, *inside, *ends])
    copy.graph.input.extend(value for value in model.graph.input if value.name not in shared)
    copy.graph.output.extend(outputs)
    copy.graph.initializer.extend(weights)
    return copy


def together(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """The sum of both twins' outputs where those are floats, else the first twin's."""
    nodes, outputs = [], []
    for value in model.graph.output:
        is_float = value.type.tensor_type.elem_type in FLOATS
        inputs = [f"a/{value.name}", f"b/{value.name}"] if is_float else [f"a/{value.name}"]
        nodes.append(helper.make_node("Add" if is_float else "Identity", inputs, [value.name]))
        outputs.append(value)
    return nodes, outputs


def branches(value: onnx.ValueInfoProto, opset: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Two nodes that read the input: 1x1 convolutions of a feature map, multiplications of anything else."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    dtype = FLOATS[value.type.tensor_type.elem_type]
    is_map = len(dims) in (3, 4, 5) and dims[1] > 0 and opset >= 1
    nodes, weights = [], []
    for number, part in enumerate(PARTS):
        array: NDArray[np.floating] = np.asarray(part, dtype)
        if is_map:
            array = (part * np.eye(dims[1])).astype(dtype).reshape(dims[1], dims[1], *(1,) * (len(dims) - 2))
        weights.append(numpy_helper.from_array(array, f"{value.name}/part{number}"))
        inputs, output = [value.name, weights[-1].name], f"{value.name}/{number}"
        nodes.append(helper.make_node("Conv" if is_map else "Mul", inputs, [output]))
    return nodes, weights


def float_input(model: onnx.ModelProto) -> onnx.ValueInfoProto | None:
    weights = {tensor.name for tensor in model.graph.initializer}
    found = (value for value in model.graph.input if value.name not in weights)
    return next(
        (
            value
            for value in found
            if value.type.HasField("tensor_type")
            and value.type.tensor_type.elem_type in FLOATS
            and value.type.tensor_type.HasField("shape")
        ),
        None,
    )


def opset_of(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, 4)  # before, a weight had to be an input as well
    normalize(copy, folder=None)  # type: ignore[arg-type]  # the suite keeps nothing in files beside
    return copy
