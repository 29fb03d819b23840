from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from rir_deploy.artifacts import METADATA_KEY, Provenance
from rir_deploy.engines.base import TensorSpec
from rir_deploy.engines.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    check_engine,
    read_manifest,
    record_file,
    write_manifest,
)
from rir_deploy.errors import InputError

COMMAND = "rir-deploy build-engine model.onnx -o engine --backend onnxruntime"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An engine folder that is in order."""
    (tmp_path / "engine.rtx").write_bytes(b"\x00native code\xff" * 100)
    onnx.save(graph_model(), tmp_path / "graph.onnx")
    write_manifest(tmp_path, manifest(tmp_path))
    return tmp_path


def graph_model(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    """x -> DequantizeLinear(QuantizeLinear(x))."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    scale = helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    return helper.make_model(helper.make_graph(nodes, "graph", values[:1], values[1:], [scale, *tensors]))


def manifest(folder: Path) -> Manifest:
    return Manifest(
        backend="tensorrt-rtx",
        backend_version="1.7.1",
        precision="int8",
        engine=record_file(folder / "engine.rtx"),
        graph=record_file(folder / "graph.onnx"),
        input=TensorSpec("input", "float32", (None, 3, 32, 32)),
        outputs=(TensorSpec("logits", "float32", (None, 10)),),
        parents={"checkpoint": "a" * 64},
        recipe={"mean": [0.5, 0.5, 0.5]},
        batch=(1, 8, 32),
        targets=("sm89", "sm120"),
        realized={"inspected": False, "reason": "no GPU"},
        host={"system": "Linux"},
        command=COMMAND,
        created="2025-01-01T00:00:00+00:00",
        tool="rir-deploy 0.1",
    )


def edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_written_is_read_and_vouched_for(folder: Path) -> None:
    assert read_manifest(folder) == manifest(folder)
    assert check_engine(folder) == manifest(folder)


def test_record_file_is_sha256_and_size(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert record_file(tmp_path / "abc") == FileRecord("abc", digest, 3)


@pytest.mark.parametrize("name", ["engine.rtx", "graph.onnx"])
def test_one_changed_byte_is_refused_with_the_rebuild_command(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[17] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*sha256 differs.*rebuild it with: {COMMAND}"):
        check_engine(folder)


@pytest.mark.parametrize("field", ["engine", "graph"])
@pytest.mark.parametrize("wrong", [0, 1, 2**40])
def test_a_size_that_the_file_has_not_is_refused(folder: Path, field: str, wrong: int) -> None:
    data = json.loads((folder / MANIFEST_NAME).read_text())
    data[field]["size_bytes"] = wrong
    (folder / MANIFEST_NAME).write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"has \d+ bytes where its manifest says {wrong}; rebuild it with: {COMMAND}"):
        check_engine(folder)
    assert check_engine(folder, trust=True).engine.name == "engine.rtx"


@pytest.mark.parametrize("name", ["engine.rtx", "graph.onnx"])
def test_a_missing_file_is_refused_with_the_rebuild_command(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"no file '{name}'.*rebuild it with: {COMMAND}"):
        check_engine(folder)


@pytest.mark.parametrize("name", ["engine.rtx", "graph.onnx"])
def test_a_symlink_is_refused_though_its_target_is_right(
    folder: Path, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"no file '{name}'"):
        check_engine(folder)


@pytest.mark.parametrize("name", ["../engine.rtx", "sub/engine.rtx", "/etc/hostname", "..", "."])
def test_a_name_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / "engine.rtx"
    outside.write_bytes((folder / "engine.rtx").read_bytes())
    (folder / "sub").mkdir()
    (folder / "sub" / "engine.rtx").write_bytes(outside.read_bytes())
    record = record_file(outside)
    edit(folder, engine={"name": name, "sha256": record.sha256, "size_bytes": record.size_bytes})
    try:
        with pytest.raises(InputError, match="no file"):
            check_engine(folder)
    finally:
        outside.unlink()


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "\x00\x01", "[]", "null", "1"])
def test_text_that_is_not_a_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json.*rebuild it with build-engine"):
        read_manifest(folder)


def test_bytes_that_are_not_text_are_refused(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="not readable JSON"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "engine.rtx"},
        {"engine": {"name": "engine.rtx"}},
        {"engine": {"name": 7, "sha256": "a", "size_bytes": 1}},
        {"batch": [1, 2]},
        {"batch": ["a", "b", "c"]},
        {"batch": 3},
        {"input": None},
        {"outputs": [{"name": "x"}]},
        {"backend": None},
        {"recipe": "cifar10"},
        {"parents": ["a"]},
        {"targets": None},
    ],
    ids=str,
)
def test_a_malformed_field_is_refused_with_the_rebuild_command(folder: Path, changes: dict[str, object]) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=f"malformed.*rebuild it with: {COMMAND}"):
        read_manifest(folder)


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused(folder: Path, number: object) -> None:
    edit(folder, format=number)
    with pytest.raises(InputError, match="not a manifest of format 1"):
        read_manifest(folder)


def test_a_folder_without_a_manifest_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json; build one with build-engine"):
        check_engine(tmp_path)
    with pytest.raises(InputError):
        check_engine(tmp_path / "nowhere")


def kept_in(*locations: str) -> onnx.TensorProto:
    """A weight of one number outside of its file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for location in locations:
        tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("locations", [("ok.bin",), ("./graph.onnx",), ("engine.rtx", "ok.bin"), ("sub/../ok.bin",)])
@pytest.mark.parametrize("where", ["weight", "constant", "subgraph", "sparse"])
def test_weights_that_the_manifest_does_not_vouch_for_are_refused(
    folder: Path, locations: tuple[str, ...], where: str
) -> None:
    (folder / "ok.bin").write_bytes(b"\0" * 4)
    model, tensor = graph_model(), kept_in(*locations)
    if where == "weight":
        model = graph_model(tensor)
    elif where == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif where == "subgraph":
        inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner))
    else:
        model.graph.node.append(onnx.NodeProto(op_type="Constant", output=["c"]))
        sparse = model.graph.node[-1].attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
        sparse.sparse_tensor.values.CopyFrom(tensor)
    onnx.save(model, folder / "graph.onnx")
    write_manifest(folder, manifest(folder))
    with pytest.raises(InputError, match=f"keeps weights in .* does not vouch for; rebuild it with: {COMMAND}"):
        check_engine(folder)
    assert check_engine(folder, trust=True) == manifest(folder)


def test_weights_that_the_manifest_vouches_for_are_taken(folder: Path) -> None:
    (folder / "ok.bin").write_bytes(b"\0" * 4)
    onnx.save(graph_model(kept_in("ok.bin")), folder / "graph.onnx")
    write_manifest(folder, replace(manifest(folder), extra=(record_file(folder / "ok.bin"),)))
    check_engine(folder)


def test_the_engine_of_onnx_runtime_is_held_to_the_same(folder: Path) -> None:
    (folder / "ok.bin").write_bytes(b"\0" * 4)
    onnx.save(graph_model(kept_in("ok.bin")), folder / "engine.rtx")
    write_manifest(folder, replace(manifest(folder), backend="onnxruntime"))
    with pytest.raises(InputError, match=r"engine\.rtx' keeps weights in 'ok\.bin'"):
        check_engine(folder)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4", ""])
def test_a_precision_that_is_not_the_graphs_is_refused(folder: Path, precision: str) -> None:
    edit(folder, precision=precision)
    with pytest.raises(InputError, match=f"graph.onnx' is 'int8', and its manifest says '{precision}'; rebuild it"):
        check_engine(folder)
    assert check_engine(folder, trust=True).precision == precision


def with_convolution(data_type: int) -> onnx.ModelProto:
    model = graph_model(onnx.TensorProto(name="w", data_type=data_type, dims=[1, 1, 1, 1], raw_data=b"\0\0\0\0"))
    if data_type == onnx.TensorProto.FLOAT16:
        model.graph.initializer[-1].raw_data = b"\0\0"
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["y"]))
    return model


def says(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    record = Provenance(tool="rir-deploy 1", precision=precision)
    model.metadata_props.add(key=METADATA_KEY, value=record.to_json())
    return model


@pytest.mark.parametrize(
    ("model", "precision", "found"),
    [
        (with_convolution(onnx.TensorProto.FLOAT), "fp16", "fp32"),
        (with_convolution(onnx.TensorProto.FLOAT), "int8", "fp32"),
        (with_convolution(onnx.TensorProto.FLOAT16), "fp32", "fp16"),
        (says(with_convolution(onnx.TensorProto.FLOAT), "int8"), "int8", "fp32"),  # a looser gate, by its own word
        (says(with_convolution(onnx.TensorProto.FLOAT), "fp32"), "int8", "fp32"),
        (says(graph_model(), "fp32"), "int8", "fp32"),
        (with_convolution(onnx.TensorProto.FLOAT), "fp32", None),
        (with_convolution(onnx.TensorProto.FLOAT16), "fp16", None),
        (says(graph_model(), "int8"), "int8", None),
    ],
)
def test_the_precision_is_told_by_the_graph_and_by_what_it_says(
    folder: Path, model: onnx.ModelProto, precision: str, found: str | None
) -> None:
    onnx.save(model, folder / "graph.onnx")
    write_manifest(folder, replace(manifest(folder), precision=precision))
    if found is None:
        assert check_engine(folder).precision == precision
        return
    with pytest.raises(InputError, match=f"is '{found}', and its manifest says '{precision}'"):
        check_engine(folder)


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_graph_of_malformed_origin_or_none_at_all_is_refused(folder: Path, text: str) -> None:
    model = graph_model()
    model.metadata_props.add(key=METADATA_KEY, value=text)
    onnx.save(model, folder / "graph.onnx")
    write_manifest(folder, manifest(folder))
    with pytest.raises(InputError, match=r"provenance record in the metadata is malformed.*rebuild it with: "):
        check_engine(folder)
    (folder / "graph.onnx").write_bytes(b"graph" * 50)
    write_manifest(folder, manifest(folder))
    with pytest.raises(InputError, match=r"is not a readable ONNX file; rebuild it with: "):
        check_engine(folder)


def test_a_graph_that_brings_an_engine_of_its_own_is_refused(folder: Path) -> None:
    model = graph_model()
    model.graph.node.append(helper.make_node("EPContext", ["x"], ["z"], name="ep", domain="com.microsoft"))
    onnx.save(model, folder / "graph.onnx")
    write_manifest(folder, manifest(folder))
    with pytest.raises(InputError, match=r"node 'ep' \(EPContext\) brings a compiled engine; rebuild it with: "):
        check_engine(folder)
