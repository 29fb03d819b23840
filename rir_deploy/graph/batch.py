"""Giving a graph of a fixed batch a dynamic one, where its nodes allow that."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from rir_deploy.errors import InputError
from rir_deploy.graph.compare import compare_rows
from rir_deploy.graph.equivalence import DifferenceError, compare_graphs
from rir_deploy.graph.evaluate import Graph, NotRunError

BATCH_NAME = "batch"


def with_dynamic_batch(model: ir.Model) -> ir.Model:
    """A copy whose first axis is dynamic, of its one input and of every output that had the batch there.

    The batch is taken out of the targets of Reshape nodes. The copy was run beside the original: at the original's
    batch, and at others, image by image.

    Raises:
        InputError: the graph has its batch in other places too, or answers otherwise in another batch.
    """
    copy = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.clone()).model
    (given,) = (value for value in copy.graph.inputs if value.name not in copy.graph.initializers)
    assert given.shape is not None
    size = given.shape[0]
    assert isinstance(size, int)
    for value in (given, *copy.graph.outputs):
        if value.shape is not None and len(value.shape) > 0 and value.shape[0] == size:
            value.shape = ir.Shape([BATCH_NAME, *value.shape[1:]])
    outputs = set(copy.graph.outputs)
    for node in copy.graph:
        _free_reshape(copy.graph, node, size)
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    copy = ShapeInferencePass()(copy).model
    try:
        check = compare_graphs(Graph(model), Graph(copy))
        if check.skipped:
            raise NotRunError(check.skipped)
        compare_rows(Graph(model), Graph(copy), size)
    except DifferenceError as error:
        raise _refusal(size, str(error)) from error
    except NotRunError as error:
        raise _refusal(size, f"it cannot be checked: {error}") from error
    return copy


def _refusal(size: int, reason: str) -> InputError:
    return InputError(
        f"the model takes batches of {size} only, and made dynamic it would not answer as before ({reason}); export it "
        f"with a dynamic batch, or pass --batch {size},{size},{size}"
    )


def _free_reshape(graph: ir.Graph, node: ir.Node, size: int) -> None:
    """A target that begins with the batch copies the first size of what it reshapes instead."""
    target = node.inputs[1] if node.op_type == "Reshape" and len(node.inputs) > 1 else None
    if target is None or target.const_value is None or node.attributes.get_int("allowzero"):
        return
    sizes = target.const_value.numpy().reshape(-1)
    if len(sizes) < 2 or sizes[0] != size:
        return
    name = f"{target.name}/{BATCH_NAME}"
    if name not in graph.initializers:
        free = ir.tensor(np.concatenate([[0], sizes[1:]]).astype(np.int64), name=name)
        shape, dtype = ir.Shape([len(sizes)]), ir.TensorType(ir.DataType.INT64)
        graph.register_initializer(ir.Value(name=name, shape=shape, type=dtype, const_value=free))
    node.replace_input_with(1, graph.initializers[name])
