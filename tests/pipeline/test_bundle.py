"""Making a bundle: what is in it, that it repeats itself to the byte, what is not bundled."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from rir_deploy.data.digits import DigitsSource
from rir_deploy.recipe import load_recipe
from tests.conftest import Bundled, Runner


@pytest.fixture
def run(bundled: Bundled, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(bundled.run, tmp_path / "elsewhere" / "run"))


def record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((run / "run.json").read_text())
    change(data)
    (run / "run.json").write_text(json.dumps(data))


def array(archive: zipfile.ZipFile, name: str) -> Any:
    return np.load(BytesIO(archive.read(name)))


def test_it_holds_what_the_run_made_under_its_hashes(bundled: Bundled) -> None:
    made = {file["path"]: file["sha256"] for file in json.loads((bundled.run / "run.json").read_text())["files"]}
    with zipfile.ZipFile(bundled.file) as archive:
        index = json.loads(archive.read("index.json"))
        names = archive.namelist()
        hashes = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    assert names[0] == "index.json"
    assert {one["name"]: one["sha256"] for one in index["members"]} == {name: hashes[name] for name in names[1:]}
    # The unfolded network is there to be compared with, not to be shipped.
    expected = [path for path in made if path.startswith(("graphs/", "engines/")) and "-unfolded" not in path]
    assert {path: hashes[path] for path in expected} == {path: made[path] for path in expected}
    assert all(name in made or name.startswith("golden/") for name in names[1:])
    assert [(item["name"], item["precision"], item["flavour"], item["backend"]) for item in index["items"]] == [
        ("fp32", "fp32", None, None),
        ("fp16", "fp16", None, None),
        ("int8-cpu", "int8", "cpu", None),
        ("onnxruntime-fp32", "fp32", None, "onnxruntime"),
        ("onnxruntime-fp16", "fp16", None, "onnxruntime"),
        ("onnxruntime-int8", "int8", "cpu", "onnxruntime"),
    ]
    assert index["recipe"] == load_recipe("digits").to_dict()


def test_golden_images_are_of_the_test_set_and_of_all_classes(bundled: Bundled) -> None:
    source = DigitsSource("digits:test".partition(":")[2])  # type: ignore[arg-type]
    with zipfile.ZipFile(bundled.file) as archive:
        golden = json.loads(archive.read("index.json"))["golden"]
        images = array(archive, "golden/images.npy")
    assert golden["source"] == "digits:test"
    assert golden["source_sha256"] == source.fingerprint()
    assert images.shape == (32, 8, 8, 1)
    assert images.dtype == np.uint8
    assert len(set(golden["indices"])) == 32
    for place, image in zip(golden["indices"], images, strict=True):
        assert np.array_equal(source.image(place), image)
    assert set(Counter(int(source.labels[place]) for place in golden["indices"]).values()) == {3, 4}


def test_golden_logits_are_what_the_folded_graph_computes(bundled: Bundled) -> None:
    """By onnx's reference evaluator, on images preprocessed by hand."""
    with zipfile.ZipFile(bundled.file) as archive:
        images, logits = array(archive, "golden/images.npy"), array(archive, "golden/fp32.npy")
        graph = onnx.load_from_string(archive.read("graphs/fp32.onnx"))
        kept = {name: array(archive, f"golden/{name}.npy") for name in ("onnxruntime-fp32", "fp16", "int8-cpu")}
    x = ((images / 255.0 - 0.3058) / 0.3764).transpose(0, 3, 1, 2).astype(np.float32)
    (expected,) = ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: x})
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(kept["onnxruntime-fp32"], logits)
    for name in ("fp16", "int8-cpu"):
        error = np.abs(kept[name] - logits).max() / np.abs(logits).max()
        assert 0 < error < 0.2, name


def test_the_same_run_gives_the_same_bytes(bundled: Bundled, run: Path, rir: Runner, tmp_path: Path) -> None:
    ran = rir("bundle", run, "-o", tmp_path / "again.zip", "--json")
    assert ran.code == 0, ran.err
    assert (tmp_path / "again.zip").read_bytes() == bundled.file.read_bytes()
    assert ran.json["sha256"] == hashlib.sha256(bundled.file.read_bytes()).hexdigest()
    ran = rir("bundle", run, "-o", tmp_path / "other.zip", "--seed", 1)
    assert ran.code == 0, ran.err
    assert (tmp_path / "other.zip").read_bytes() != bundled.file.read_bytes()


def test_engines_can_be_chosen_or_left_out(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    def items(*options: object) -> list[str]:
        ran = rir("bundle", bundled.run, "-o", tmp_path / "b.zip", "--force", "--json", *options)
        assert ran.code == 0, ran.err
        return [item["name"] for item in ran.json["items"] if item["backend"] is not None]

    assert items("--engine", "onnxruntime-int8") == ["onnxruntime-int8"]
    assert items("--no-engines") == []
    assert rir("bundle", bundled.run, "-o", tmp_path / "b.zip", "--engine", "x", "--no-engines").code == 2
    ran = rir("bundle", bundled.run, "-o", tmp_path / "b.zip", "--force", "--engine", "onnxruntime-int9")
    assert ran.code == 2
    assert "did you mean" in ran.err


def test_the_fp32_graph_is_there_whatever_the_plan_says(run: Path, rir: Runner, tmp_path: Path) -> None:
    def without_fp32(data: dict[str, Any]) -> None:
        data["graphs"] = [graph for graph in data["graphs"] if graph["name"] == "int8-cpu"]
        data["engines"] = []

    record(run, without_fp32)
    ran = rir("bundle", run, "-o", tmp_path / "b.zip", "--json")
    assert ran.code == 0, ran.err
    assert [item["name"] for item in ran.json["items"]] == ["fp32", "int8-cpu"]


def leaves_the_folder(data: dict[str, Any]) -> None:
    data["graphs"][0]["name"] = "../../fp32"
    data["files"].append({**data["files"][0], "path": "graphs/../../fp32.onnx"})


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda run: (run / "graphs/fp16.onnx").write_bytes(b"tampered"), 5, "graphs/fp16.onnx' is not as the run"),
        (lambda run: (run / "engines/onnxruntime-fp16/manifest.json").write_text("{}"), 5, "is not as the run"),
        (lambda run: (run / "graphs/fp32.onnx").unlink(), 5, "is missing"),
        (lambda run: (run / "run.json").unlink(), 2, "no finished run"),
        (lambda run: (run / "run.json").write_text("{"), 5, "not readable JSON"),
        (lambda run: record(run, lambda data: data.update(files=[])), 5, "does not list 'graphs/fp32.onnx'"),
        (lambda run: record(run, lambda data: data.pop("engines")), 5, "'engines'"),
        (lambda run: record(run, lambda data: data.update(data="gone.zip")), 2, "--data"),
        (lambda run: record(run, lambda data: data["engines"][1].update(status="failed")), 3, "onnxruntime-fp16"),
        (lambda run: record(run, lambda data: data["graphs"][1].update(precision="fp8")), 5, "calls 'fp16' fp8"),
        (lambda run: record(run, leaves_the_folder), 5, "not a plain relative one"),
    ],
)
def test_what_is_not_bundled(
    damage: Callable[[Path], object], code: int, words: str, run: Path, rir: Runner, tmp_path: Path
) -> None:
    damage(run)
    ran = rir("bundle", run, "-o", tmp_path / "b.zip")
    assert ran.code == code, ran.err
    assert words in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]


def test_a_graph_that_fails_on_the_golden_images_is_not_bundled(run: Path, rir: Runner, tmp_path: Path) -> None:
    """Its classes are in reverse, and the record of the run vouches for it all the same."""
    path = run / "graphs/int8-cpu.onnx"
    model = onnx.load(path)
    head = next(x for x in model.graph.initializer if list(x.dims) == [10, 32, 1, 1])
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head)[::-1].copy(), head.name))
    onnx.save(model, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    record(run, lambda data: [x.update(sha256=sha256) for x in data["files"] if x["path"] == "graphs/int8-cpu.onnx"])
    ran = rir("bundle", run, "-o", tmp_path / "b.zip", "--no-engines")
    assert ran.code == 3, ran.err
    assert "'int8-cpu' fails on the golden images" in ran.err


def test_the_output(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    ran = rir("bundle", bundled.run, "-o", tmp_path / "b.tar")
    assert ran.code == 2
    assert ".zip" in ran.err
    (tmp_path / "b.zip").write_text("precious")
    assert rir("bundle", bundled.run, "-o", tmp_path / "b.zip").code == 2
    assert (tmp_path / "b.zip").read_text() == "precious"
    ran = rir("bundle", bundled.run, "-o", tmp_path / "b.zip", "--force")
    assert ran.code == 0, ran.err
    assert hashlib.sha256((tmp_path / "b.zip").read_bytes()).hexdigest() in ran.out
