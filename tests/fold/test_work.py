"""What a graph costs, counted against sums written out here."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError
from rir_deploy.fold import fold, measure_work
from rir_deploy.fold.work import ASSUMED_SIZE
from tests.fold.graphs import Writer


@pytest.mark.parametrize("size", [(8, 6), ("height", "width")])
def test_convolutions_and_products(size: tuple[int | str, int | str]) -> None:
    w = Writer()
    x = w.input(4, size)
    x = w.relu(w.conv(x, 6, (3, 1), bias=True, strides=[2, 2], pads=[1, 0, 1, 0]))
    x = w.conv(x, 6, 3, group=3)
    flat = w.op("Flatten", [w.op("GlobalAveragePool", [x], 6)], 6)
    y = w.op("Gemm", [flat, w.constant(w.rng.standard_normal((6, 5)))], 5)
    work = measure_work(w.model(y))
    height, width = (side if isinstance(side, int) else ASSUMED_SIZE for side in size)
    places = -(-height // 2) * -(-width // 2)
    assert work.macs == (4 * 6 * 3 + 6 * 2 * 9) * places + 6 * 5
    assert work.params == 4 * 6 * 3 + 6 + 6 * 2 * 9 + 6 * 5
    assert work.weight_bytes == 8 * work.params
    assert (work.convs, work.nodes) == (2, 6)


def test_sizes_that_the_graph_computes_in_several_steps() -> None:
    """Space to depth with sizes read off the tensor and divided: each is known only once the one before it is."""
    w = Writer()
    x = w.input(1, ("height", "width"))
    for _ in range(2):
        x = _to_depth(w, x)
    work = measure_work(w.model(w.conv(x, 5, 1)))
    assert work.macs == 16 * 5 * (ASSUMED_SIZE // 4) ** 2


def _to_depth(w: Writer, x: str) -> str:
    """[N, C, H, W] to [N, 4 C, H / 2, W / 2], whatever the order of the numbers."""
    two, four = (w.constant(np.array([n], dtype=np.int64)) for n in (2, 4))
    shape = w.op("Shape", [x], 1)
    batch, channels, *sides = (
        w.op("Gather", [shape, w.constant(np.array([axis], dtype=np.int64))], 1) for axis in range(4)
    )
    halves = [w.op("Div", [side, two], 1) for side in sides]
    sizes = w.op("Concat", [batch, w.op("Mul", [channels, four], 1), *halves], 1, axis=0)
    return w.op("Reshape", [x, sizes], 4 * w.channels[x])


def test_the_model_is_not_changed() -> None:
    w = Writer()
    model = w.model(w.conv(_to_depth(w, w.input(1, ("height", "width"))), 5, 1))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    measure_work(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(("window", "counted"), [(9, ASSUMED_SIZE), (65, 512), (256, 512), (600, 4096)])
def test_windows_that_the_assumed_size_is_too_small_for(axes: int, window: int, counted: int) -> None:
    """A Slice after it: onnx ends the process where it infers one of a size below zero."""
    w, taps = Writer(dtype=np.float32), (window,) + (1,) * (axes - 1)
    names = ["length", "width"][:axes]
    x = w.op("Conv", [w.input(2, names), w.constant(np.ones((3, 2, *taps)))], 3)
    model = w.model(w.slice(w.relu(w.op("Add", [x, w.constant(np.ones((3, *[1] * axes)))], 3)), 0, 2))
    places = (counted - window + 1) * counted ** (axes - 1)
    assert measure_work(model).macs == 6 * window * places
    result = fold(model)
    # The convolution of the channel that nobody reads has gone, at the same size.
    assert (result.before.macs, result.after.macs) == (6 * window * places, 4 * window * places)


def test_windows_that_no_assumed_size_is_large_enough_for() -> None:
    w = Writer(dtype=np.float32)
    x = w.op("Conv", [w.input(2, ["length"]), w.constant(np.ones((3, 2, 5000)))], 3)
    model = w.model(w.slice(w.bn(x), 0, 2))
    assert measure_work(model).macs == 0
    assert fold(model).after.ops == {"Conv": 1}


def test_a_size_below_zero_in_the_file_is_its_own_fault() -> None:
    w = Writer(dtype=np.float32)
    x = w.op("Conv", [w.input(2, [8]), w.constant(np.ones((3, 2, 3)))], 3)
    model = w.model(w.slice(x, 0, 2))
    model.graph.inputs[0].shape = ir.Shape([1, 2, 1])
    with pytest.raises(InputError, match="1x3x-1"):
        fold(model)


def test_sizes_of_minus_one_are_dynamic() -> None:
    w = Writer()
    model = w.model(w.conv(w.input(3, ("height", "width")), 4))
    expected = measure_work(model)
    model.graph.inputs[0].shape = ir.Shape([-1, 3, -1, -1])
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([-1, 4, -1, -1])
    assert measure_work(model) == expected
