"""Properties of the fold over random graphs of the family."""

from __future__ import annotations

import hypothesis
import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given

from rir_deploy.fold import fold
from tests.fold.family import Family, build, families
from tests.fold.graphs import ops, relative_error


def _bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@hypothesis.settings(max_examples=200, deadline=None)
@given(families())
def test_same_function_no_more_work_idempotent_deterministic(family: Family) -> None:
    model = build(family)
    untouched = _bytes(model)
    result = fold(model)
    assert result.modified
    assert _bytes(model) == untouched
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    # float64 throughout; cancellation in random networks costs a few digits.
    assert relative_error(model, result.model) < 1e-9
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    again = fold(result.model)
    assert not again.modified
    assert _bytes(again.model) == _bytes(result.model)
    assert _bytes(fold(model).model) == _bytes(result.model)
    if family.outer == "none":
        assert result.after.convs == 2 + 2 * len(family.layers)
        # The stem is a block too, the head is none; where channels died, a block may have only one branch left.
        assert result.blocks == 1 + 2 * len(family.layers) or result.dead_channels
        assert not ops(result.model).keys() & {"Add", "Concat", "Split", "Slice", "Pad", "BatchNormalization", "Mul"}


@hypothesis.settings(max_examples=15, deadline=None)
@given(families())
def test_dynamic_height_and_width(family: Family) -> None:
    """The same function at even and odd sizes, where strides round differently."""
    model = build(family, ("height", "width"))
    result = fold(model)
    for size in (7, 8, 12):
        assert relative_error(model, result.model, size=size) < 1e-9
    assert result.after.macs <= result.before.macs


def test_one_convolution_a_block_at_dynamic_size() -> None:
    result = fold(build(Family(((3, 2, 1), (4, 4, 2))), ("height", "width")))
    assert ops(result.model) == {"Conv": 6, "Relu": 5, "GlobalAveragePool": 1}


def test_both_outer_shortcuts_cost_one_add_a_pair() -> None:
    for before in (True, False):
        result = fold(build(Family(((4, 4, 1), (4, 4, 1)), outer="both", outer_before_relu=before)))
        assert ops(result.model) == {"Conv": 6, "Relu": 5, "Add": 2, "GlobalAveragePool": 1}


def test_outer_shortcut_of_the_residual_stream_is_a_masked_add() -> None:
    for before in (True, False):
        result = fold(build(Family(((4, 3, 1), (4, 3, 1)), outer="residual", outer_before_relu=before)))
        assert ops(result.model) == {"Conv": 6, "Relu": 5, "Add": 2, "Mul": 2, "GlobalAveragePool": 1}


def test_the_folded_weights_are_the_formula() -> None:
    """One block against W = [[Wrr + I, Wtr], [Wrt, Wtt]], rows scaled by BN, computed here by hand."""
    model = build(Family(((2, 3, 1),), kernel=(3, 3), seed=5))
    weights = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    nodes = list(model.graph)
    convs = [node for node in nodes if node.op_type == "Conv"][2:6]
    norms = [node for node in nodes if node.op_type == "BatchNormalization"][2:4]
    rr, tr, rt, tt = (weights[str(node.inputs[1].name)] for node in convs)  # type: ignore[union-attr]
    rr = rr.copy()
    rr[range(2), range(2), 1, 1] += 1.0
    joined = (
        np.block([[[rr], [tr]], [[rt], [tt]]])
        if False
        else np.concatenate([np.concatenate([rr, tr], axis=1), np.concatenate([rt, tt], axis=1)])
    )
    parameters = [[weights[str(value.name)] for value in node.inputs[1:]] for node in norms]  # type: ignore[union-attr]
    gamma, beta, mean, var = (np.concatenate(pair) for pair in zip(*parameters, strict=True))
    scale = gamma / np.sqrt(var + np.float32(1e-3))
    folded = fold(model).model
    second = [node for node in folded.graph if node.op_type == "Conv"][1]
    weight, bias = (value.const_value.numpy() for value in second.inputs[1:])  # type: ignore[union-attr]
    np.testing.assert_allclose(weight, joined * scale[:, None, None, None], rtol=1e-12)
    np.testing.assert_allclose(bias, beta - mean * scale, rtol=1e-12)
