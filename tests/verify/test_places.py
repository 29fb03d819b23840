"""Blocks and streams from the modules that tracers note."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.places import Place, block_of, place_of
from tests.verify.trained import Trained


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("layers.3.residual_norm", "layers.3"),
        ("layers.3", "layers.3"),
        ("stem.residual.norm", "stem"),
        ("head", "head"),
        ("layer1.0.conv1", "layer1.0"),
        ("net.features.3.conv", "net.features.3"),
        ("features.stage1.unit2.body.conv1.bn", "features.stage1.unit2"),
        ("conv1", "conv1"),
    ],
)
def test_blocks(module: str, block: str) -> None:
    assert block_of(module) == block


def test_every_tensor_of_a_trace_has_its_place(trained: Trained) -> None:
    """By counting: each block has one relu a stream; its convolutions are told by where they write to."""
    places: dict[tuple[Place, str], int] = {}
    for node in load_onnx(trained.traced).graph:
        key = (place_of(node.outputs[0]), node.op_type)
        places[key] = places.get(key, 0) + 1
    for block in range(4):
        for stream, convs in (("residual", 3 if block == 2 else 2), ("transient", 2)):
            place = Place(f"layers.{block}", stream)
            assert places[place, "Relu"] == 1
            assert places[place, "Conv"] == convs
            assert places[place, "Add"] == (2 if stream == "residual" else 1)
    assert places[Place("layers.3", None), "Concat"] == 1
    assert places[Place("head", None), "Conv"] == 1
    assert places[Place("stem", "transient"), "Conv"] == 1


def test_a_graph_without_notes_has_no_places() -> None:
    x = ir.Value(name="x")
    node = ir.Node("", "Relu", [x])
    assert place_of(node.outputs[0]) == Place(None, None)
