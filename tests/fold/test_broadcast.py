"""Sums whose sizes depend on the input: joined where they are known to be equal, and only there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from rir_deploy.fold import fold
from tests.fold.graphs import Writer, evaluate_on, ops

Size = str | int | None
Shape = tuple[Size, int, Size, Size]


def _input(w: Writer, name: str, shape: Shape) -> str:
    w.inputs.append(helper.make_tensor_value_info(name, w.tensor_type, list(shape)))
    w.channels[name] = shape[1]
    return name


def _same(model: ir.Model, *shapes: dict[str, tuple[int, ...]]) -> ir.Model:
    """Fold, run both on inputs of those shapes, and return the result."""
    result = fold(model).model
    before, after = (ir.to_proto(m) for m in (model, result))
    onnx.checker.check_model(after, full_check=True)
    rng = np.random.default_rng(0)
    for sizes in shapes:
        feed = {name: rng.standard_normal(shape) for name, shape in sizes.items()}
        for a, b in zip(evaluate_on(before, feed), evaluate_on(after, feed), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    return result


def _two_inputs(op: str, first: Shape, second: Shape) -> ir.Model:
    w = Writer()
    x, y = (w.conv(_input(w, name, shape), 4) for name, shape in (("x", first), ("y", second)))
    return w.model(w.relu(w.op(op, [x, y], 4)), rank=4)


ONE, FEW = (1, 2, 8, 8), (3, 2, 8, 8)
UNEQUAL: list[tuple[Shape, Shape]] = [
    (("N", 2, 8, 8), (1, 2, 8, 8)),
    (("N", 2, 8, 8), ("M", 2, 8, 8)),
    ((None, 2, 8, 8), (None, 2, 8, 8)),
    (("N", 2, 8, 8), (None, 2, 8, 8)),
    ((-1, 2, 8, 8), (-1, 2, 8, 8)),
]


@pytest.mark.parametrize("op", ["Add", "Sub", "Sum"])
@pytest.mark.parametrize(("first", "second"), UNEQUAL)
def test_batches_that_may_differ(op: str, first: Shape, second: Shape) -> None:
    result = _same(_two_inputs(op, first, second), {"x": FEW, "y": ONE}, {"x": FEW, "y": FEW})
    _same(_two_inputs(op, second, first), {"x": ONE, "y": FEW})
    assert ops(result)["Conv"] == 2


@pytest.mark.parametrize(("first", "second"), [(("N", 2, 8, 8),) * 2, ((3, 2, 8, 8),) * 2])
def test_batches_of_one_name_or_number_are_joined(first: Shape, second: Shape) -> None:
    result = _same(_two_inputs("Add", first, second), {"x": FEW, "y": FEW})
    assert ops(result) == {"Concat": 1, "Conv": 1, "Relu": 1}


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(("first", "second"), [("H", "K"), (None, None), ("H", None), ("H", 1)])
def test_heights_and_widths_that_may_differ(axis: int, first: Size, second: Size) -> None:
    shapes = [[1, 2, 8, 8], [1, 2, 8, 8]]
    declared: list[list[Size]] = [list(shape) for shape in shapes]
    declared[0][axis], declared[1][axis], shapes[1][axis] = first, second, 1
    x, y = (tuple(shape) for shape in declared)
    _same(_two_inputs("Add", x, y), {"x": tuple(shapes[0]), "y": tuple(shapes[1])})  # type: ignore[arg-type]


def _mean(w: Writer, x: str) -> str:
    return w.op("ReduceMean", [x, w.constant(np.array([0]))], w.channels[x], keepdims=1)


def _first(w: Writer, x: str) -> str:
    return w.op("Slice", [x, *(w.constant(np.array([n])) for n in (0, 1, 0))], w.channels[x])


def _chosen(w: Writer, x: str) -> str:
    return w.op("Gather", [x, w.constant(np.array([0]))], w.channels[x], axis=0)


def _reshaped(w: Writer, x: str) -> str:
    """[-1, 2 C, H, W]: half as many images, of twice as many channels."""
    shape = np.array([-1, 2 * w.channels[x], 8, 8])
    return w.op("Reshape", [x, w.constant(shape)], 2 * w.channels[x])


@pytest.mark.parametrize("batch", ["N", None])
@pytest.mark.parametrize("make", [_mean, _first, _chosen, _reshaped])
def test_tensors_of_one_input_with_another_batch(make: Callable[[Writer, str], str], batch: Size) -> None:
    w = Writer()
    x = _input(w, "x", (batch, 2, 8, 8))
    a, b = w.conv(x, 4), w.conv(make(w, x), 4)
    runs = [{"x": (n, 2, 8, 8)} for n in ((2, 2) if make is _reshaped else (1, 3))]
    assert ops(_same(w.model(w.relu(w.add(a, b)), rank=4), *runs))["Conv"] == 2


def _residual(shape: Shape) -> ir.Model:
    """A residual over an op that no rule explains, in which sizes have to keep their names."""
    w = Writer()
    x = _input(w, "x", shape)
    unknown = w.op("InstanceNormalization", [x, *(w.constant(np.ones(2)) for _ in range(2))], 2)
    return w.model(w.relu(w.add(w.conv(x, 4), w.conv(x, 4, 1), w.conv(unknown, 4), w.conv(unknown, 4, 1))), rank=4)


@pytest.mark.parametrize("shape", [(None, 2, 8, 8), (None, 2, None, None), ("N", 2, "H", None), (-1, 2, -1, -1)])
def test_what_comes_from_one_input_of_unnamed_sizes_is_joined(shape: Shape) -> None:
    result = _same(_residual(shape), {"x": (2, 2, 8, 8)}, {"x": (1, 2, 8, 8)})
    assert ops(result) == ops(fold(_residual(("N", 2, "H", "W"))).model)
    names = [size for value in result.graph.inputs for size in value.shape or ()]
    names += [size for node in result.graph for value in node.outputs for size in value.shape or ()]
    assert not any("rir_deploy" in str(size) for size in names)


def test_concat_along_the_batch_or_the_height() -> None:
    for axis in (0, 2, -2, -4):
        w = Writer()
        x, y = (w.conv(_input(w, name, ("N", 2, 8, 8)), 4) for name in "xy")
        joined = w.op("Concat", [x, y], 4, axis=axis)
        _same(w.model(w.relu(w.conv(joined, 3)), rank=4), {"x": FEW, "y": FEW})


def test_the_reason_is_told() -> None:
    (refused,) = fold(_two_inputs("Add", ("N", 2, 8, 8), ("M", 2, 8, 8))).refused
    assert "not known to be equal" in refused.reason
