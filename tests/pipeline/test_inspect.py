"""inspect: every kind of file, and its figures against figures counted otherwise."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.conftest import Bundled, Made, Ran, Runner

GRAPHS = {
    "fp32": ("float32", "float32"),
    "fp16": ("float16", "float16"),
    "int8-cpu": ("uint8", "int8"),
}


def look(rir: Runner, path: Path) -> Any:
    ran: Ran = rir("inspect", path, "--json")
    assert ran.code == 0, ran.err
    assert rir("inspect", path).code == 0
    return ran.json


def counted_macs(path: Path) -> dict[str, int]:
    """Multiply-adds of each Conv of a folded digits network, by the shapes that onnx infers at batch 1."""
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return {
        node.name: math.prod(shapes[node.input[1]]) * math.prod(shapes[node.output[0]][2:])
        for node in graph.node
        if node.op_type == "Conv"
    }


def stored_bytes(path: Path) -> dict[str, int]:
    """Bytes of each Conv's weight and bias, with the scales and zero points of their DequantizeLinears."""
    graph = onnx.load(path).graph
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    behind = {node.output[0]: node.input for node in graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: sum(sizes[name] for operand in node.input[1:] for name in behind.get(operand, [operand]))
        for node in graph.node
        if node.op_type == "Conv"
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_of_a_graph(name: str, bundled: Bundled, rir: Runner) -> None:
    activations, weights = GRAPHS[name]
    path = bundled.run / f"graphs/{name}.onnx"
    found = look(rir, path)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert {layer: one["macs"] for layer, one in layers.items()} == counted_macs(path)
    assert found["work"]["macs"] == sum(counted_macs(path).values())
    assert {(one["op"], one["activations"], one["weights"]) for one in layers.values()} == {
        ("Conv", activations, weights)
    }
    assert {layer: one["weight_bytes"] for layer, one in layers.items()} == stored_bytes(path)
    assert found["provenance"]["precision"] == name.partition("-")[0]


def test_layers_where_the_file_has_no_shapes(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    model = onnx.load(bundled.run / "graphs/fp32.onnx")
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "bare.onnx")
    layers = look(rir, tmp_path / "bare.onnx")["layers"]
    assert [layer["macs"] for layer in layers] == list(counted_macs(bundled.run / "graphs/fp32.onnx").values())
    assert {layer["activations"] for layer in layers} == {"float32"}


def test_layers_of_a_checkpoint(made: Made, rir: Runner, tmp_path: Path) -> None:
    """As many as the traced graph has convolutions, with the same multiply-adds."""
    assert rir("export", made.checkpoint, "-o", tmp_path / "traced.onnx", "--no-fold", "--no-check").code == 0
    found = look(rir, made.checkpoint)
    assert sorted(layer["macs"] for layer in found["layers"]) == sorted(counted_macs(tmp_path / "traced.onnx").values())
    assert found["work"]["convs"] == len(found["layers"]) == 20
    assert found["work"]["params"] == found["parameters"]
    assert found["layers"][0]["name"].startswith("stem")


def test_an_engine(made: Made, rir: Runner) -> None:
    found = look(rir, made.engine)
    assert found["kind"] == "engine"
    assert found["layers"] == look(rir, made.onnx)["layers"]
    assert found["size_bytes"] == found["engine"]["size_bytes"]


def test_a_bundle(bundled: Bundled, rir: Runner) -> None:
    found = look(rir, bundled.file)
    items = {item["name"]: item for item in found["items"]}
    for name in GRAPHS:
        graph = look(rir, bundled.run / f"graphs/{name}.onnx")
        assert items[name]["layers"] == graph["layers"]
        assert items[name]["work"] == graph["work"]
    assert items["onnxruntime-int8"]["parents"]["onnx"] == look(rir, bundled.run / "graphs/int8-cpu.onnx")["sha256"]
    assert found["provenance"]["parents"].keys() == {"checkpoint"}
    assert found["golden"]["source"] == "digits:test"
    data = bytearray(bundled.file.read_bytes())
    data[len(data) // 2] ^= 1
    (bundled.file.parent / "tampered.zip").write_bytes(data)
    ran = rir("inspect", bundled.file.parent / "tampered.zip")
    assert ran.code == 5
    assert "sha256 differs" in ran.err


def test_a_range_table(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    path = bundled.run / "graphs/int8-cpu.ranges.json"
    written = json.loads(path.read_text())
    found = look(rir, path)
    assert found["kind"] == "ranges"
    assert {one["name"]: [one["min"], one["max"]] for one in found["tensors"]} == written["ranges"]
    assert found["made_from"]["model_sha256"] == written["model_sha256"]
    weights = path.with_suffix(".safetensors")
    assert found["equalized_groups"] == len(written["exponents"])
    assert found["rounded_weights"] == {
        "file": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "beside_it": "yes",
    }
    shutil.copy(path, tmp_path / "alone.json")
    assert look(rir, tmp_path / "alone.json")["rounded_weights"]["beside_it"] == "no"
    (tmp_path / "alone.safetensors").write_bytes(weights.read_bytes()[:-1])
    assert look(rir, tmp_path / "alone.json")["rounded_weights"]["beside_it"] == "another"
    (tmp_path / "other.json").write_text("{}")
    ran = rir("inspect", tmp_path / "other.json")
    assert ran.code == 5
    assert "is not a range table" in ran.err
