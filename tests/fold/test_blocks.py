"""How many blocks were folded: convolutions that do the work of several branches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.fold import fold
from tests.fold.family import Family, build
from tests.fold.graphs import Writer


def _blocks(model: ir.Model) -> int:
    """What the fold counts; the folded model has none left."""
    result = fold(model)
    assert result.to_dict()["blocks"] == result.blocks
    assert fold(result.model).blocks == 0
    assert fold(ir.from_proto(ir.to_proto(result.model))).blocks == 0
    return result.blocks


@pytest.mark.parametrize("shortcut", ["pad", "projection-bn"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_rir_has_one_a_layer_and_its_stem(shortcut: str, joined: bool) -> None:
    family = Family(((3, 2, 1), (4, 4, 2), (4, 4, 1)), shortcut=shortcut, joined=joined, norm="joined")
    assert _blocks(build(family)) == 1 + 2 * len(family.layers)


@pytest.mark.parametrize("outer", ["residual", "both"])
def test_what_stays_an_addition_is_no_block(outer: str) -> None:
    """The outer shortcuts of a RiR stay; its layers are blocks all the same."""
    assert _blocks(build(Family(((4, 4, 1), (4, 4, 1)), outer=outer))) == 1 + 4


def test_a_repvgg_has_one_a_block() -> None:
    w = Writer()
    x = w.input(3)
    x = w.relu(w.add(w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1))))
    for _ in range(3):
        x = w.relu(w.add(w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1)), w.bn(x)))
    assert _blocks(w.model(w.op("GlobalAveragePool", [x], 4))) == 4


def test_a_plain_cnn_has_none() -> None:
    w = Writer()
    x = w.input(3)
    for _ in range(3):
        x = w.relu(w.bn(w.conv(x, 4, bias=True)))
    model = w.model(w.bn(w.conv(x, 5, 1)))
    assert fold(model).modified
    assert _blocks(model) == 0


def test_a_plain_resnet_has_none() -> None:
    """Its shortcut spans a nonlinearity."""
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    for _ in range(2):
        x = w.relu(w.add(w.bn(w.conv(w.relu(w.bn(w.conv(x, 4))), 4)), x))
    model = w.model(x)
    assert fold(model).modified
    assert _blocks(model) == 0


def test_one_convolution_over_joined_streams_is_no_block() -> None:
    """Concatenated streams read by one convolution: the streams' own convolutions are joined, it is not."""
    w = Writer()
    x = w.input(3)
    y = w.conv(w.concat(w.relu(w.conv(x, 4)), w.relu(w.conv(x, 2))), 5)
    assert _blocks(w.model(w.relu(w.bn(y)))) == 1


@pytest.mark.parametrize("beside", ["identity", "pool", "batch norm"])
def test_a_convolution_and_something_beside_it(beside: str) -> None:
    w = Writer()
    x = w.input(4)
    pool = {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}
    other = {
        "identity": lambda: x,
        "pool": lambda: w.op("AveragePool", [x], 4, **pool),
        "batch norm": lambda: w.bn(x),
    }[beside]()
    assert _blocks(w.model(w.relu(w.add(w.conv(x, 4), other)))) == 1


def test_blocks_are_counted_over_all_passes() -> None:
    """The first pass makes one convolution of two branches and takes out seven of its channels, which are dead;
    only then is it cheaper to make one convolution of the bottleneck, in a second pass."""
    w = Writer()
    x = w.input(3)
    dead = np.r_[1.0, np.zeros(7)].reshape(1, 8, 1, 1)
    hidden = w.op("Mul", [w.add(w.conv(x, 8), w.conv(x, 8, 1)), w.constant(dead)], 8)
    result = fold(w.model(w.relu(w.conv(w.conv(w.relu(hidden), 2, 1), 8))))
    assert (result.dead_channels, result.after.convs) == (7, 2)
    assert result.blocks == 2
