"""One op at a time: what becomes part of the convolution before it, and what stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from rir_deploy.fold import fold
from tests.fold.graphs import Writer, check, ops

INT64_MAX = np.iinfo(np.int64).max
Make = Callable[[Writer, str], str]


def _integers(w: Writer, *values: int) -> str:
    return w.constant(np.array(values, dtype=np.int64))


def _scalar(w: Writer, value: float = 0.5) -> str:
    return w.constant(np.array(value))


def _vector(w: Writer) -> str:
    return w.constant(w.rng.uniform(0.5, 1.5, (4, 1, 1)))


def _dropout(w: Writer, x: str, training: bool) -> str:
    return w.op("Dropout", [x, _scalar(w), w.constant(np.array(training))], 4)


def _split(w: Writer, x: str, inputs: tuple[str, ...] = (), **attributes: object) -> str:
    """The second half before the first."""
    first = w.op("Split", [x, *inputs], 2, outputs=2, **{"axis": 1, **attributes})
    w.channels[f"{first}_1"] = 2
    return w.concat(f"{first}_1", first)


def _slice(w: Writer, x: str, start: int, stop: int, axis: int, step: int = 1) -> str:
    return w.op("Slice", [x, *(_integers(w, n) for n in (start, stop, axis, step))], 4)


def _pad(w: Writer, x: str, *amounts: int, **attributes: object) -> str:
    return w.op("Pad", [x, _integers(w, *amounts)], 4, **attributes)


FOLDED: dict[str, Make] = {
    "Add a scalar": lambda w, x: w.op("Add", [x, _scalar(w)], 4),
    "Add to a vector": lambda w, x: w.op("Add", [_vector(w), x], 4),
    "Sub a vector": lambda w, x: w.op("Sub", [x, _vector(w)], 4),
    "Sub from a vector": lambda w, x: w.op("Sub", [_vector(w), x], 4),
    "Sum with constants": lambda w, x: w.op("Sum", [x, _vector(w), _scalar(w)], 4),
    "Sum of one": lambda w, x: w.op("Sum", [x], 4),
    "Mul by a vector": lambda w, x: w.op("Mul", [_vector(w), x], 4),
    "Mul by a scalar": lambda w, x: w.op("Mul", [x, _scalar(w)], 4),
    "Div by a vector": lambda w, x: w.op("Div", [x, _vector(w)], 4),
    "Neg": lambda w, x: w.op("Neg", [x], 4),
    "Identity": lambda w, x: w.op("Identity", [x], 4),
    "Dropout": lambda w, x: w.op("Dropout", [x], 4),
    "Dropout in eval mode": lambda w, x: _dropout(w, x, False),
    "BatchNormalization": lambda w, x: w.bn(x),
    "Split in halves": lambda w, x: _split(w, x, num_outputs=2),
    "Split in sizes": lambda w, x: _split(w, x, (_integers(w, 2, 2),), axis=-3),
    "Slice from the end": lambda w, x: w.concat(_slice(w, x, -2, INT64_MAX, -3), _slice(w, x, -4, -2, 1)),
    "a chain": lambda w, x: w.op("Neg", [w.bn(w.op("Div", [w.op("Sub", [_scalar(w), x], 4), _vector(w)], 4))], 4),
}


@pytest.mark.parametrize("name", FOLDED)
def test_it_becomes_part_of_the_convolution(name: str) -> None:
    w = Writer()
    model = w.model(w.relu(FOLDED[name](w, w.conv(w.input(3), 4, bias=True))))
    assert ops(check(model)) == {"Conv": 1, "Relu": 1}


BRANCHES: dict[str, Make] = {
    "Sub of branches": lambda w, x: w.op("Sub", [w.conv(x, 4, 1), w.bn(w.conv(x, 4))], 4),
    "Sum of branches": lambda w, x: w.op("Sum", [w.conv(x, 4, 1), x, w.bn(w.conv(x, 4))], 4),
    "a branch less the input": lambda w, x: w.op("Sub", [w.conv(x, 4), w.scale(x, 0.5)], 4),
    "a Pad and a strided Slice": lambda w, x: w.add(
        w.conv(x, 4, strides=[2, 2]),
        w.op("Slice", [x, *(_integers(w, *n) for n in ((0, 0), (99, 99), (2, 3), (2, 2)))], 4),
    ),
    "convolutions of a Concat": lambda w, x: w.add(*(w.conv(w.concat(x, x), 4, k) for k in (1, 3))),
    "a Pad before a convolution": lambda w, x: w.add(
        w.conv(_pad(w, x, 0, 0, 1, 1, 0, 0, 1, 1), 4, pads=[0] * 4), w.conv(x, 4, 1)
    ),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_become_one_convolution(name: str) -> None:
    w = Writer()
    assert ops(check(w.model(w.relu(BRANCHES[name](w, w.input(4)))))) == {"Conv": 1, "Relu": 1}


STAYS: dict[str, Make] = {
    "Mul": lambda w, x: w.op("Mul", [x, w.op("Sigmoid", [x], 4)], 4),
    "Div": lambda w, x: w.op("Div", [_scalar(w), w.op("Exp", [x], 4)], 4),
    "Add": lambda w, x: w.op("Add", [x, w.constant(w.rng.standard_normal((1, 1, 8, 8)))], 4),
    "Sum": lambda w, x: w.op("Sum", [x, w.constant(w.rng.standard_normal((2, 4, 1, 1)))], 4),
    "Concat": lambda w, x: w.op("Concat", [x, x], 4, axis=2),
    "Slice": lambda w, x: _slice(w, x, 1, INT64_MAX, 2),
    "Pad": lambda w, x: _pad(w, x, 0, 0, 1, 1, 0, 0, 1, 1, mode="reflect"),
    "PRelu": lambda w, x: w.op("PRelu", [x, _vector(w)], 4),
    "Transpose": lambda w, x: w.op("Transpose", [x], 4, perm=[0, 1, 3, 2]),
    "Softmax": lambda w, x: w.op("Softmax", [x], 4, axis=1),
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays_and_what_is_around_it_folds(name: str) -> None:
    w = Writer()
    x = STAYS[name](w, w.bn(w.conv(w.input(3), 4)))
    folded = check(w.model(w.relu(w.add(w.bn(w.conv(x, 4)), w.bn(w.conv(x, 4, 1))))))
    assert ops(folded)[name] == 1
    assert ops(folded)["Conv"] == 2
    assert "BatchNormalization" not in ops(folded)


@pytest.mark.parametrize("opset", [11, 12])
def test_ops_as_older_opsets_write_them(opset: int) -> None:
    """Sizes and ratios as attributes."""
    w = Writer(opset=opset)
    x = w.op("Dropout", [w.conv(w.input(3), 4)], 4, **({"ratio": 0.5} if opset == 11 else {}))
    model = w.model(w.relu(_split(w, x, split=[2, 2])))
    assert ops(check(model)) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("valid", [True, False])
def test_a_crop(valid: bool) -> None:
    """A Pad of negative amounts: part of a convolution that reads no border, else it stays, since none can crop."""
    w = Writer(dtype=np.float32)
    x = w.input(4)
    y = w.bn(w.conv(_pad(w, x, 0, 0, -1, -1, 0, 0, -1, -1), 4, 1))
    model = w.model(w.relu(w.add(y, w.conv(x, 4, pads=[0] * 4)) if valid else y))
    folded = fold(model).model
    assert ops(folded) == {"Conv": 1, "Relu": 1, **({} if valid else {"Pad": 1})}
    onnx.checker.check_model(ir.to_proto(folded), full_check=True)
    image = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    before, after = (
        ort.InferenceSession(ir.to_proto(m).SerializeToString()).run(None, {"x": image})[0] for m in (model, folded)
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert not fold(folded).modified


def test_channels_of_zeros_that_are_sliced_off_again() -> None:
    """What depends on no input cannot be a convolution of anything: it stays."""
    w = Writer()
    padded = w.pad_channels(w.relu(w.bn(w.conv(w.input(3), 2))), 4)
    model = w.model(w.conv(w.slice(padded, 2, 4), 3, bias=True), w.conv(w.slice(padded, 0, 2), 3))
    assert "depends on no input" in fold(model).refused[0].reason
    assert ops(check(model))["BatchNormalization"] == 0
