"""No weight is stored more often than before, and only what would be is left unfolded."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rir_deploy.fold import FoldResult, fold
from tests.fold.family import Family, build
from tests.fold.graphs import Writer, ops, relative_error

THREE_BY_THREE = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _check(model: ir.Model) -> FoldResult:
    result = fold(model)
    assert relative_error(model, result.model) < 1e-9
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    again = fold(result.model)
    assert not again.modified
    return result


def _streams(w: Writer, x: str) -> tuple[str, str]:
    return w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))


def test_a_shared_weight_stays_unjoined_and_the_rest_folds() -> None:
    w = Writer()
    r, t = _streams(w, w.input(3))
    shared = w.constant(w.rng.standard_normal((8, 4, 3, 3)))
    y = w.relu(w.add(*(w.op("Conv", [x, shared], 8, **THREE_BY_THREE) for x in (r, t))))
    for _ in range(2):
        a, b = w.relu(w.bn(w.conv(y, 4))), w.relu(w.bn(w.conv(y, 4)))
        y = w.relu(w.bn(w.add(w.conv(a, 4), w.conv(b, 4))))
    result = _check(w.model(y))
    # Two streams and the two readers of the shared weight, then two convolutions a block.
    assert ops(result.model) == {"Conv": 8, "Add": 1, "Relu": 7}
    assert [refusal.node for refusal in result.refused] == ["n6", "n7"]
    assert "shares the weight" in result.refused[0].reason


def test_the_largest_shared_weight_alone_is_given_up() -> None:
    w = Writer()
    r, t = _streams(w, w.input(3))
    small, large = (w.constant(w.rng.standard_normal((8, 4, k, k))) for k in (1, 3))
    first = w.add(*(w.op("Conv", [x, small], 8, kernel_shape=[1, 1]) for x in (r, t)))
    y = w.relu(first)
    a, b = w.relu(w.conv(y, 4)), w.relu(w.bn(w.conv(y, 4)))
    result = _check(w.model(w.relu(w.add(*(w.op("Conv", [x, large], 8, **THREE_BY_THREE) for x in (a, b))))))
    assert [refusal.node for refusal in result.refused] == ["n15", "n16"]
    assert result.after.convs == 6  # of 8


def test_shared_weights_fold_where_what_vanishes_pays_for_the_copies() -> None:
    w = Writer()
    r, t = _streams(w, w.input(3))
    shared = w.constant(w.rng.standard_normal((1, 4, 1, 1)))
    y = w.add(*(w.op("Conv", [x, shared], 1, kernel_shape=[1, 1]) for x in (r, t)))
    result = _check(w.model(w.relu(y)))
    assert ops(result.model) == {"Conv": 2, "Relu": 2}
    assert not result.refused


@pytest.mark.parametrize("norm", ["none", "streams"])
def test_a_mask_is_left_out_where_nothing_pays_for_it(norm: str) -> None:
    """Slice and Pad need no weights; where batch norms vanish, a mask is one node less."""
    model = build(Family(((2, 5, 1), (2, 5, 1)), norm=norm, outer="residual", kernel=(1, 1)))
    if norm == "none":  # the batch norm of the head would pay
        for node in [n for n in model.graph if n.op_type == "BatchNormalization"]:
            node.outputs[0].replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
            model.graph.remove(node, safe=True)
        ir.passes.common.RemoveUnusedNodesPass()(model)
    counts = ops(_check(model).model)
    assert counts["Conv"] == 6
    assert counts["Mul"] == (2 if norm == "streams" else 0)
    assert counts["Pad"] == (0 if norm == "streams" else 2)


def test_equal_masks_are_stored_once() -> None:
    result = _check(build(Family(((2, 5, 1),) * 4, outer="residual")))
    masks = [value for name, value in result.model.graph.initializers.items() if name.endswith(".mask")]
    assert len(masks) == 1
    assert len(masks[0].uses()) == 4


def test_scalars_do_not_become_vectors() -> None:
    """Pixels scaled by scalars before a padded convolution: no batch norm of four vectors is made of two numbers."""
    w = Writer()
    x = w.input(64)
    scaled = w.op("Add", [w.scale(x, 0.5), w.constant(np.array(-1.0))], 64)
    result = _check(w.model(w.relu(w.add(w.conv(scaled, 2), w.conv(scaled, 2, 1)))))
    assert ops(result.model) == {"Mul": 1, "Add": 1, "Conv": 1, "Relu": 1}


def test_weights_in_constant_nodes_count() -> None:
    w = Writer()
    model = build(Family(((3, 2, 1),), norm="none", scale=0.5))
    del w
    for name in [
        n for n, v in model.graph.initializers.items() if v.const_value is not None and v.const_value.size > 1
    ]:
        value = model.graph.initializers.pop(name)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], name=f"{name}/Constant")
        node.outputs[0].name = name
        value.replace_all_uses_with(node.outputs[0])
        model.graph.insert_before(model.graph[0], node)
    result = _check(model)
    assert result.before.params > 0
    assert result.after.convs == 4


def test_a_part_of_a_group_of_a_grouped_convolution_stays_small() -> None:
    """Two groups of four rows, read as 3 + 5 channels: dense kernels for the parts would double the work."""
    w = Writer()
    x = w.bn(w.conv(w.input(4), 8, group=2))
    a, b = w.relu(w.slice(x, 0, 3)), w.relu(w.slice(x, 3, 8))
    result = _check(w.model(w.conv(a, 2, 1), w.conv(b, 3, 1)))
    assert ops(result.model) == {"Conv": 3, "Slice": 2, "Relu": 2}
