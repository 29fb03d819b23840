"""Which streams become one tensor, and what of names and outputs survives."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.fold import fold
from rir_deploy.fold.members import read_members
from tests.fold.graphs import Writer, check, ops, relative_error


def test_clips_join_only_with_equal_bounds() -> None:
    for high, convs in ((6.0, 2), (5.0, 3)):
        w = Writer()
        x = w.input(3)
        low = w.constant(np.array(0.0))
        r = w.op("Clip", [w.conv(x, 4), low, w.constant(np.array(6.0))], 4)
        t = w.op("Clip", [w.conv(x, 4), low, w.constant(np.array(high))], 4)
        y = w.relu(w.add(w.conv(r, 4), w.conv(t, 4)))
        folded = check(w.model(y))
        assert ops(folded)["Conv"] == convs, high


def test_bounds_that_are_computed_from_a_size_stay_computed() -> None:
    """A number that shape inference knows is no weight: what computes it must still be there."""
    w = Writer()
    x = w.input(3)
    rows = w.op("Gather", [w.op("Shape", [x], 1), w.constant(np.array(2))], 1)
    high = w.op("Cast", [rows], 1, to=w.tensor_type)
    r = w.op("Clip", [w.bn(w.conv(x, 4)), w.constant(np.array(0.0)), high], 4)
    check(w.model(w.relu(w.bn(w.conv(r, 4)))))


def test_leaky_relus_join_only_with_equal_slopes() -> None:
    for slope, activations in ((0.1, 2), (0.2, 3)):
        w = Writer()
        x = w.input(3)
        r = w.op("LeakyRelu", [w.conv(x, 4)], 4, alpha=0.1)
        t = w.op("LeakyRelu", [w.conv(x, 4)], 4, alpha=slope)
        y = w.op("LeakyRelu", [w.add(w.conv(r, 4), w.conv(t, 4))], 4, alpha=0.1)
        assert ops(check(w.model(y)))["LeakyRelu"] == activations


def test_different_ops_do_not_join() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.bn(w.conv(x, 4))), w.op("HardSwish", [w.bn(w.conv(x, 4))], 4)
    folded = check(w.model(w.relu(w.bn(w.add(w.conv(r, 4), w.conv(t, 4))))))
    assert ops(folded) == {"Conv": 3, "Relu": 2, "HardSwish": 1, "Concat": 1}


@pytest.mark.parametrize("rest", [False, True])
def test_a_convolution_that_reads_a_part_of_a_stream(rest: bool) -> None:
    """What nobody else reads of the stream goes; what somebody does is no reason to multiply by zeros."""
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))
    y = w.relu(w.bn(w.add(w.conv(w.slice(r, 1, 3), 3), w.conv(t, 3))))
    model = w.model(y, w.op("GlobalAveragePool", [r], 4)) if rest else w.model(y)
    folded = check(model)
    rows = [node.inputs[1].shape[:2] for node in folded.graph if node.op_type == "Conv"]  # type: ignore[index, union-attr]
    assert sorted(rows) == ([(3, 2), (3, 4), (4, 3), (4, 3)] if rest else [(3, 6), (6, 3)])


def test_an_inner_tensor_that_is_also_an_output() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))
    a = w.bn(w.add(w.conv(r, 4), w.conv(t, 4), r))
    model = w.model(w.relu(a), r, a)
    folded = check(model)
    assert [value.name for value in folded.graph.outputs] == [value.name for value in model.graph.outputs]
    assert ops(folded) == {"Conv": 2, "Relu": 2, "Slice": 1}


def test_one_tensor_as_two_outputs_keeps_both_names() -> None:
    w = Writer()
    y = w.relu(w.bn(w.conv(w.input(3), 4)))
    alias = w.op("Identity", [y], 4)
    model = w.model(y, alias)
    folded = check(model)
    assert [value.name for value in folded.graph.outputs] == [y, alias]


def test_shared_weights() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    shared = w.constant(w.rng.standard_normal((4, 4, 3, 3)))
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    y = w.add(w.op("Conv", [r, shared], 4, **attributes), w.op("Conv", [t, shared], 4, **attributes))
    model = w.model(w.relu(y))
    result = fold(model)
    assert relative_error(model, result.model) < 1e-9
    # The joined kernel would store the shared weight twice.
    assert result.after.weight_bytes <= result.before.weight_bytes


def test_streams_that_never_meet_stay_apart() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    for _ in range(2):
        r, t = w.relu(w.bn(w.add(w.conv(r, 4), r))), w.relu(w.bn(w.conv(t, 4)))
    folded = check(w.model(w.op("GlobalAveragePool", [w.concat(r, t)], 8)))
    assert ops(folded)["Conv"] == 6
    assert "Slice" not in ops(folded)


def test_an_update_of_a_part_of_a_tensor_outside_the_fold() -> None:
    """The channels before the updated ones are passed through from a tensor that no rule explains."""
    w = Writer()
    x = w.input(4)
    y = w.op("Softmax", [x], 4, axis=1)
    z = w.concat(w.slice(y, 0, 1), w.add(w.slice(y, 1, 4), w.conv(x, 3)))
    assert ops(check(w.model(z)))["Conv"] == 1


def test_a_reader_of_one_stream_only_keeps_the_streams_apart_there() -> None:
    """The last conv reads t alone: joining r and t before it would make it slice or multiply by zeros."""
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 4))
    r, t = w.relu(w.add(w.conv(r, 4), w.conv(t, 4))), w.relu(w.add(w.conv(t, 4), w.conv(r, 4)))
    folded = check(w.model(w.op("GlobalAveragePool", [w.conv(t, 2)], 2), w.op("GlobalAveragePool", [r], 4)))
    assert "Slice" not in ops(folded)


def test_elementwise_swish_and_gates_survive() -> None:
    w = Writer()
    x = w.input(3)
    a = w.bn(w.conv(x, 4))
    gate = w.op("Sigmoid", [w.op("GlobalAveragePool", [a], 4)], 4)
    y = w.op("Mul", [w.op("Mul", [a, w.op("Sigmoid", [a], 4)], 4), gate], 4)
    assert ops(check(w.model(y)))["Conv"] == 1


@pytest.mark.parametrize(("branches", "convs"), [("repvgg", 1), ("acnet", 1), ("depthwise", 1), ("unpaired", 2)])
def test_multi_branch_training_blocks(branches: str, convs: int) -> None:
    w = Writer()
    x = w.input(4)
    parts = {
        "repvgg": lambda: [w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1)), w.bn(x)],
        "acnet": lambda: [w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, (1, 3))), w.bn(w.conv(x, 4, (3, 1)))],
        "depthwise": lambda: [w.bn(w.conv(x, 4, group=4)), w.bn(w.conv(x, 4, 1, group=4)), w.bn(x)],
        # Without the 3x3, a 3x3 kernel for 1x3 and 3x1 would cost half as much again.
        "unpaired": lambda: [w.conv(x, 4, (1, 3)), w.conv(x, 4, (3, 1))],
    }[branches]()
    assert ops(check(w.model(w.relu(w.add(*parts)))))["Conv"] == convs


def test_names_metadata_and_provenance_of_channels() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 2))
    model = w.model(w.relu(w.add(w.conv(r, 4), w.conv(t, 4))))
    model.metadata_props["author"] = "someone"
    folded = check(model)
    assert folded.metadata_props["author"] == "someone"
    assert folded.graph.inputs[0].name == "x"
    assert str(folded.graph.inputs[0].shape[0]) == "batch"
    joined = next(node for node in folded.graph if node.op_type == "Relu")
    assert read_members(joined) == [(r, 0, 4), (t, 0, 2)]


def test_channels_are_traced_through_an_earlier_fold() -> None:
    w = Writer()
    x = w.input(3)
    r, t = w.relu(w.conv(x, 4)), w.relu(w.conv(x, 2))
    model = w.model(w.relu(w.add(w.conv(r, 4), w.conv(t, 4))))
    folded = fold(model).model
    relu = next(node for node in folded.graph if node.op_type == "Relu")
    weight = relu.inputs[0].producer().inputs[1]  # type: ignore[union-attr]
    array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
    array[[1, 4]] = 0.0
    weight.const_value = ir.tensor(array, name=weight.name)  # type: ignore[union-attr]
    again = fold(folded)
    assert again.dead_channels == 2
    joined = next(node for node in again.model.graph if node.op_type == "Relu")
    assert read_members(joined) == [(r, 0, 1), (r, 2, 4), (t, 1, 2)]


def test_a_long_chain_neither_recurses_nor_slows() -> None:
    w = Writer()
    x = w.input(2, (2, 2))
    r, t = w.relu(w.conv(x, 2, 1)), w.relu(w.conv(x, 2, 1))
    for _ in range(400):
        a = w.add(w.conv(r, 2, 1), w.conv(t, 2, 1), r)
        b = w.add(w.conv(t, 2, 1), w.conv(r, 2, 1))
        r, t = w.relu(a), w.relu(b)
    folded = fold(w.model(w.concat(r, t)))
    assert folded.after.ops == {"Conv": 401, "Relu": 401}


@pytest.mark.parametrize("around", [False, True])
def test_updates_of_which_one_is_made_of_the_other(around: bool) -> None:
    """c = a + b and d = b + c update both halves of one tensor, but no single node can give them both.

    ``around``: d is made of c by way of a convolution and a relu.
    """
    w = Writer()
    x = w.input(4)
    a, b = w.slice(x, 0, 2), w.slice(x, 2, 4)
    c = w.add(a, b)
    d = w.add(b, w.relu(w.conv(c, 2)) if around else c)
    check(w.model(w.relu(w.conv(w.concat(c, d), 3)), w.relu(w.conv(w.concat(d, c), 3))))
    check(w.model(w.relu(w.conv(w.concat(c, d), 3)), c, d))
