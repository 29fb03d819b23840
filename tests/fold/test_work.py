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
    """A channel shuffle as TorchScript writes it: each reshape is known only once the one before it is."""
    w = Writer()
    x = w.input(4, ("height", "width"))
    for _ in range(3):
        x = _shuffled(w, w.conv(x, 4, 1))
    work = measure_work(w.model(w.conv(x, 5, 1)))
    assert work.macs == (3 * 4 * 4 + 4 * 5) * ASSUMED_SIZE**2


def _shuffled(w: Writer, x: str) -> str:
    """Channels in two groups, transposed; all sizes are read off the tensor, and one is divided."""
    two = w.constant(np.array([2], dtype=np.int64))
    shape = w.op("Shape", [x], 1)
    batch, channels, *sides = (
        w.op("Gather", [shape, w.constant(np.array([axis], dtype=np.int64))], 1) for axis in range(4)
    )
    parts = [batch, two, w.op("Div", [channels, two], 1), *sides]
    apart = w.op("Reshape", [x, w.op("Concat", parts, 1, axis=0)], 1)
    turned = w.op("Transpose", [apart], 1, perm=[0, 2, 1, 3, 4])
    return w.op("Reshape", [turned, w.op("Concat", [batch, channels, *sides], 1, axis=0)], w.channels[x])


def test_the_model_is_not_changed() -> None:
    w = Writer()
    model = w.model(_shuffled(w, w.conv(w.input(4, ("height", "width")), 4, 1)))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    measure_work(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
