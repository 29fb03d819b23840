"""What a run records of its losses: stages, layers, flipped images with their pictures, a block before and after."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnxruntime
from PIL import Image

from rir_deploy.export import MODULE_KEY
from rir_deploy.fold.members import MEMBERS_KEY
from rir_deploy.pipeline.block_graph import block_graphs
from rir_deploy.pipeline.run_flips import FLIPS, to_png
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.recipe import load_recipe
from rir_deploy.report.schema import read_run
from tests.conftest import Bundled, Made


@pytest.fixture(scope="module")
def record(bundled: Bundled) -> dict[str, Any]:
    return dict(json.loads((bundled.run / "run.json").read_text()))


def answers(bundled: Bundled, file: str) -> np.ndarray[Any, Any]:
    """The logits of a graph on the digits' test images, by ONNX Runtime alone."""
    data = open_dataset(None, load_recipe("digits"), "test")
    session = onnxruntime.InferenceSession(bundled.run / file, providers=["CPUExecutionProvider"])
    images = data.preprocessing.normalize(data.raw())
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def test_stages_are_those_of_the_run_in_order(record: dict[str, Any]) -> None:
    rows = [(row["name"], row["made_from"]) for row in record["stages"]["rows"]]
    assert rows == [
        ("PyTorch", None),
        ("traced ONNX", "PyTorch"),
        ("folded ONNX", "traced ONNX"),
        ("fp16 ONNX", "folded ONNX"),
        ("int8-cpu ONNX", "folded ONNX"),
        ("onnxruntime-fp32", "folded ONNX"),
        ("onnxruntime-fp16", "fp16 ONNX"),
        ("onnxruntime-int8", "int8-cpu ONNX"),
    ]
    assert read_run(record).stages is not None


def test_a_stages_figures_are_those_of_its_graph(record: dict[str, Any], bundled: Bundled) -> None:
    folded, int8 = answers(bundled, "graphs/fp32.onnx"), answers(bundled, "graphs/int8-cpu.onnx")
    row = next(row for row in record["stages"]["rows"] if row["name"] == "int8-cpu ONNX")
    labels = open_dataset(None, load_recipe("digits"), "test").labels
    assert row["top1"] == pytest.approx(float((int8.argmax(1) == labels).mean()))
    here = row["against_parent"]
    assert here["agreement"] == pytest.approx(float((int8.argmax(1) == folded.argmax(1)).mean()))
    noise = np.square(int8.astype(np.float64) - folded).sum()
    assert here["sqnr_db"] == pytest.approx(10 * np.log10(np.square(folded.astype(np.float64)).sum() / noise), abs=0.01)


def test_layers_are_those_of_every_graph(record: dict[str, Any]) -> None:
    found = {one["graph"]: one for one in record["layers"]}
    assert set(found) == {"fp32", "fp16", "int8-cpu"}
    for one in found.values():
        assert one["note"] == ""
        blocks = [row["block"] for row in one["rows"]]
        assert {"stem", "layers.0", "layers.3", "head"} <= set(blocks)
        assert all(row["verdict"] != "diverges" for row in one["rows"])
    worst = {
        name: min(row["sqnr_db"] for row in one["rows"] if row["sqnr_db"] is not None) for name, one in found.items()
    }
    assert worst["fp32"] > worst["fp16"] > worst["int8-cpu"]


def test_flipped_images_are_the_datas_own(record: dict[str, Any]) -> None:
    """An untrained network has many near ties, so that INT8 flips some."""
    engine = next(one for one in record["engines"] if one["name"] == "onnxruntime-int8")
    flips, data = engine["verify"]["flips"], open_dataset(None, load_recipe("digits"), "test")
    assert engine["verify"]["flipped"] >= len(flips) > 0
    assert len(flips) <= FLIPS
    margins = [flip["reference_margin"] for flip in flips]
    assert margins == sorted(margins, reverse=True)
    assert data.labels is not None
    classes = load_recipe("digits").classes
    for flip in flips:
        assert flip["label"] == classes[data.labels[flip["image"]]]
        assert flip["reference"] != flip["candidate"]
        picture = Image.open(io.BytesIO(base64.b64decode(record["pictures"][str(flip["image"])])))
        assert np.array_equal(np.asarray(picture), data.raw([flip["image"]])[0, ..., 0])


@pytest.mark.parametrize(("shape", "size"), [((300, 200, 3), (43, 64)), ((8, 8, 1), (8, 8)), ((64, 65, 3), (64, 63))])
def test_pictures_are_small(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    image = np.full(shape, 77, np.uint8)
    picture = Image.open(io.BytesIO(to_png(image)))
    assert picture.size == size
    assert np.unique(np.asarray(picture)).tolist() == [77]


def test_the_block_is_the_one_that_the_fold_shortened_most(
    record: dict[str, Any], bundled: Bundled, made: Made
) -> None:
    block = record["block"]
    before = [node["op"] for node in block["before"]]
    after = [node["op"] for node in block["after"]]
    assert after == ["input", "Conv", "Relu", "output"]
    # Two streams, one of which is brought to size by a fifth convolution.
    assert {op: before.count(op) for op in set(before)} == {
        "input": 2,
        "Conv": 5,
        "Add": 3,
        "BatchNormalization": 2,
        "Relu": 2,
        "output": 2,
    }
    streams = {node["stream"] for node in block["before"] if node["op"] == "Conv"}
    assert streams == {"residual", "transient"}
    folded = ir.load(bundled.run / "graphs/fp32.onnx").graph
    drawn = next(node["name"] for node in block["after"] if node["op"] == "Conv")
    assert drawn in {node.name for node in folded}


def graph(*nodes: tuple[str, str, str, str], members: str = "") -> ir.Model:
    """A chain of Relus: (name, its input, its output, its module)."""
    text = "\n".join(f"{output} = Relu({given})" for _, given, output, _ in nodes)
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 20]>\ng (float[1, 4] x) => (float[1, 4] {nodes[-1][2]}) {{\n{text}\n}}'
    )
    for node, (name, _, _, module) in zip(model.graph, nodes, strict=True):
        node.name = name
        if module:
            node.metadata_props[MODULE_KEY] = module
        if members:
            node.metadata_props[MEMBERS_KEY] = members
    return model


def test_a_block_that_is_folded_into_another_is_not_drawn() -> None:
    traced = graph(("a", "x", "u", "layers.0"), ("b", "u", "v", "layers.0"), ("c", "v", "w", "layers.1"))
    assert block_graphs(traced, graph(("ab", "x", "v", "")))["block"] == "layers.0"  # type: ignore[index]
    joined = json.dumps([["v", 0, 2], ["w", 0, 2]])
    assert block_graphs(traced, graph(("abc", "x", "w", ""), members=joined)) is None
    assert block_graphs(traced, traced) is None
