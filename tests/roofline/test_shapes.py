"""Shapes of convolutions: what they cost, and which can be chained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.errors import UsageError
from rir_deploy.fold import measure_work
from rir_deploy.fold.layers import list_layers
from rir_deploy.pipeline.roofline_graphs import PRECISIONS, chain_graph
from rir_deploy.roofline.shapes import CHAIN_MACS, MAX_REPEATS, Shape, general_shapes

SHAPES = [
    Shape(6, 6, (5, 7), repeats=3),
    Shape(4, 10, (9, 8), stride=(2, 2), batch=3),
    Shape(8, 4, (6, 6), kernel=(1, 1)),
    Shape(8, 8, (6, 6), kernel=(3, 1), groups=4, repeats=2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
def test_multiply_adds_are_those_of_the_graph(shape: Shape) -> None:
    """`measure_work` counts a model of a fixed batch whole."""
    for precision in PRECISIONS:
        assert measure_work(chain_graph(shape, precision)).macs == shape.macs


def test_chains_are_long_enough_and_no_longer() -> None:
    one = Shape(64, 64, (32, 32))
    long = one.chained()
    assert long.repeats == MAX_REPEATS == -(-CHAIN_MACS // one.macs)
    assert Shape(512, 512, (16, 16)).chained().repeats == 1  # one is enough
    assert replace(one, stride=(2, 2)).chained().repeats == 1
    assert long.chained() == long
    assert long.label == "3x3 64 to 64 at 32x32, batch 1, 16 times"
    assert replace(one, stride=(2, 2), channels_out=96).label == "3x3 64 to 96 at 32x32 by 2, batch 1"


def test_the_general_set_has_convolutions_and_products_of_several_sizes() -> None:
    shapes = general_shapes()
    assert len(set(shapes)) == len(shapes)
    assert {shape.kernel for shape in shapes} == {(1, 1), (3, 3)}
    assert len({shape.channels_in for shape in shapes}) >= 5
    assert all(shape.macs >= CHAIN_MACS or shape.repeats == MAX_REPEATS for shape in shapes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels_in": 0},
        {"kernel": (2, 2)},
        {"groups": 5},
        {"channels_out": 12, "repeats": 2},
        {"stride": (2, 2), "repeats": 2},
    ],
)
def test_shapes_that_are_none(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(Shape(6, 6, (4, 4)), **wrong)  # type: ignore[arg-type]


def test_int8_chains_are_integers_from_end_to_end() -> None:
    model = chain_graph(SHAPES[0], "int8")
    assert [(layer.activations, layer.weights) for layer in list_layers(model)] == [("uint8", "int8")] * 3
    ends = (model.graph.inputs[0], model.graph.outputs[0])
    assert [value.dtype for value in ends] == [ir.DataType.UINT8] * 2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_runtimes_fuse_int8_chains_and_their_numbers_stay_alive(backend: str) -> None:
    """A chain whose numbers all saturate or vanish could be faster than any network's."""
    runtime = pytest.importorskip(backend)
    shape, image = Shape(16, 16, (8, 8), repeats=4), np.random.default_rng(0).integers(0, 256, (1, 16, 8, 8), np.uint8)
    content = ir.to_proto(chain_graph(shape, "int8")).SerializeToString()
    if backend == "onnxruntime":
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        result = runtime.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {"x": image})[0]
    else:
        core = runtime.Core()
        compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_NUM_THREADS": 1})
        from rir_deploy.engines.openvino import executed_precisions

        assert executed_precisions(compiled)["conv"] == {"u8": 4}
        result = compiled({0: image})[0]
    assert result.dtype == np.uint8
    assert len(np.unique(result)) > 20
