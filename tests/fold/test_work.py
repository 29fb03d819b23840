"""What a graph costs, counted against sums written out here."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.fold import measure_work
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
