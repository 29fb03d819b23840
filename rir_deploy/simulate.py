"""What an FP16 graph gives on a device, computed without one: a simulation, and labelled so.

ONNX Runtime's CPU computes an FP16 graph in FP32, where an intermediate of 810,000 stays finite. Here every operator
computes in FP32 and its result is rounded to float16 by a pair of Casts, as tensor cores do that add up in FP32 and
store FP16: what leaves FP16's range becomes infinite. ONNX Runtime 1.32 keeps the pairs at every optimisation level.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common

from rir_deploy.errors import InputError

SIMULATION_KEY = "rir_deploy.simulation"
FP16_LABEL = "FP16 by rounding every tensor to float16 between operators in FP32"

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
# These only move or choose numbers: what went in rounded comes out rounded.
_EXACT = frozenset(
    {"Relu", "MaxPool", "GlobalMaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"}
    | {"Clip", "Split", "Concat", "Identity", "Pad", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"}
)

# Constants become weights, so that what is FP16 is a weight or comes out of a node; types become known.
PREPARE: tuple[Callable[[], ir.passes.PassBase], ...] = (
    common.InlinePass,
    lambda: common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.ShapeInferencePass,
)


def simulate_fp16(model: ir.Model) -> ir.Model:
    """An FP32 graph with the same inputs and outputs that rounds wherever ``model`` holds an FP16 tensor.

    Args:
        model: a graph as `rir_deploy.precision.to_fp16` makes it; it is not changed.

    Returns:
        A model for any runtime, whose metadata names it a simulation (`SIMULATION_KEY`).

    Raises:
        InputError: nothing in the model is FP16, or an input or output is.
    """
    simulated = model.clone()
    for make in PREPARE:
        simulated = make()(simulated).model
    graph = simulated.graph
    border = next((value for value in (*graph.inputs, *graph.outputs) if value.dtype == _HALF), None)
    if border is not None:
        raise InputError(f"'{border.name}' enters or leaves the model as FP16; give it FP32 there and Casts inside")
    halves = [value for node in graph for value in node.outputs if value.dtype == _HALF]
    if not halves:
        raise InputError("nothing in the model is FP16, so there is no FP16 to simulate; cast it first")
    for initializer in list(graph.initializers.values()):
        _widen(initializer)
    for value in halves:
        value.type = ir.TensorType(_FLOAT)  # a new one: clones of a model share their types
        node = value.producer()
        if node is not None and node.op_type not in _EXACT:
            _round(graph, node, value)
    simulated.metadata_props[SIMULATION_KEY] = FP16_LABEL
    return simulated


def _widen(initializer: ir.Value) -> None:
    tensor = initializer.const_value
    if tensor is not None and tensor.dtype == _HALF:
        initializer.const_value = ir.tensor(tensor.numpy().astype("float32"), name=initializer.name)
        initializer.type = ir.TensorType(_FLOAT)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Put Cast to float16 and Cast back behind ``value``; its readers read what comes back."""
    half = ir.Value(name=f"{value.name}/half", shape=value.shape, type=ir.TensorType(_HALF))
    back = ir.Value(name=f"{value.name}/rounded", shape=value.shape, type=ir.TensorType(_FLOAT))
    value.replace_all_uses_with(back)
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", int(_FLOAT))
    down = _cast(value, half, _HALF)
    graph.insert_after(node, [down, _cast(half, back, _FLOAT)])


def _cast(source: ir.Value, target: ir.Value, dtype: ir.DataType) -> ir.Node:
    return ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(dtype))], outputs=[target], name=f"{target.name}/Cast")
