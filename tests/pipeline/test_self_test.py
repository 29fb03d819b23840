"""The self-test of a bundle: it passes what is right, fails what is not, and says what it could not run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.engines import get_backend
from rir_deploy.pipeline.self_test import answers
from rir_deploy.pipeline.sides import Side
from tests.bundle.forge import Forgery
from tests.conftest import Bundled, Made, Runner

FP16, GOLDEN = "graphs/fp16.onnx", "golden/int8-cpu.npy"
ENGINE = "engines/onnxruntime-fp16"


def reversed_classes(data: bytes) -> bytes:
    """A network whose last layer has its classes in reverse."""
    model = onnx.load_from_string(data)
    head = next(x for x in model.graph.initializer if list(x.dims) == [10, 32, 1, 1])
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head)[::-1].copy(), head.name))
    return bytes(model.SerializeToString())


def forge(bundled: Bundled, path: Path, change: Callable[[Forgery], Any]) -> Path:
    """A bundle in which every hash is right and something else is not."""
    forged = Forgery.of(bundled.file).relist()
    change(forged)
    return forged.write(path)


def test_everything_passes_where_it_was_made(bundled: Bundled, rir: Runner) -> None:
    ran = rir("verify", bundled.file, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["passed"]
    assert ran.json["images"] == 32
    rows = {row["name"]: row for row in ran.json["results"]}
    names = ["fp32", "fp16", "int8-cpu", *(f"onnxruntime-{x}" for x in ("fp32", "fp16", "int8"))]
    assert list(rows) == names
    for name, row in rows.items():
        assert row["status"] == "passed"
        assert row["recorded_by"] == name
        assert row["recorded"]["max_abs_error"] == pytest.approx(0, abs=1e-4)
        assert row["reference"]["passed"]
        assert "onnxruntime" in row["runs_on"]
    assert rows["fp32"]["reference"]["max_abs_error"] <= 1e-5
    assert rows["fp16"]["reference"]["max_abs_error"] > 0
    ran = rir("verify", bundled.file)
    assert ran.code == 0
    assert "self-test passed: 6 of 6 ran here" in ran.out


def test_a_part_can_be_chosen(bundled: Bundled, rir: Runner) -> None:
    ran = rir("verify", bundled.file, "--engine", "int8-cpu", "--engine", "onnxruntime-int8", "--json")
    assert [row["name"] for row in ran.json["results"]] == ["int8-cpu", "onnxruntime-int8"]
    ran = rir("verify", bundled.file, "--engine", "int8-cp")
    assert ran.code == 2
    assert "did you mean 'int8-cpu'" in ran.err


def wrong_graph(forged: Forgery) -> None:
    forged.files[FP16] = reversed_classes(forged.files[FP16])


def wrong_golden(forged: Forgery) -> None:
    stream = io.BytesIO()
    np.save(stream, -np.load(io.BytesIO(forged.files[GOLDEN])))
    forged.files[GOLDEN] = stream.getvalue()


def wrong_precision(forged: Forgery) -> None:
    forged.index["items"][1]["precision"] = "fp32"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_graph, "fp16: against the FP32 graph: agreement"),
        (wrong_golden, "int8-cpu: against int8-cpu: agreement"),
        (wrong_precision, "'fp16' is fp16, and the index of the bundle says fp32"),
    ],
)
def test_what_computes_something_else_fails(
    change: Callable[[Forgery], None], words: str, bundled: Bundled, rir: Runner, tmp_path: Path
) -> None:
    ran = rir("verify", forge(bundled, tmp_path / "forged.zip", change))
    assert ran.code == 3, ran.err
    assert words in ran.err
    assert "FAILED" in ran.out
    ran = rir("verify", tmp_path / "forged.zip", "--json")
    assert ran.code == 3
    assert not ran.json["passed"]
    assert [row["status"] for row in ran.json["results"]].count("failed") == 1


def garbage(name: str) -> Callable[[Forgery], None]:
    return lambda forged: forged.files.update({name: b"{garbage"})


def other_images(forged: Forgery) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((32, 9, 9, 1), np.uint8))
    forged.files["golden/images.npy"] = stream.getvalue()


def no_recipe(forged: Forgery) -> None:
    forged.index["recipe"] = {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (garbage(FP16), "fp16.onnx' is not a readable ONNX file"),
        (garbage(f"{ENGINE}/manifest.json"), "manifest.json' is not readable JSON"),
        (garbage(f"{ENGINE}/graph.onnx"), "sha256 differs"),
        (garbage("golden/images.npy"), "not an array"),
        (garbage(GOLDEN), "not an array"),
        (other_images, "not as its recipe says"),
        (no_recipe, "the recipe lacks the key"),
    ],
)
def test_a_forged_bundle_is_refused_before_a_runtime_sees_it(
    change: Callable[[Forgery], None],
    words: str,
    bundled: Bundled,
    rir: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rir_deploy.pipeline.self_test.open_item", None)  # calling it would be a bug, exit code 1
    ran = rir("verify", forge(bundled, tmp_path / "forged.zip", change))
    assert ran.code == 5, ran.err
    assert words in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert "/tmp/rir-deploy-" not in ran.err


def test_where_nothing_can_run(bundled: Bundled, rir: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    ran = rir("verify", bundled.file, "--json")
    assert ran.code == 4
    assert "nothing of" in ran.json["error"]["message"]
    assert "not installed" in ran.json["error"]["message"]


def test_what_cannot_run_here_is_no_failure(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    """An engine for a GPU beside graphs that run."""

    def for_a_gpu(forged: Forgery) -> None:
        item = forged.index["items"][-1]
        item.update(backend="tensorrt", ran_on=None, reason="no GPU")
        del forged.files[f"golden/{item['name']}.npy"]

    if get_backend("tensorrt").availability().can_run:
        pytest.skip("TensorRT runs here")
    ran = rir("verify", forge(bundled, tmp_path / "forged.zip", for_a_gpu))
    assert ran.code == 0, ran.err
    assert "not run: onnxruntime-int8" in ran.out
    assert "5 of 6 ran here" in ran.out


def test_an_engine_built_from_the_bundle_is_held_to_it(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    ran = rir("build-engine", bundled.file, "-o", engine, "--int8", "--backend", "onnxruntime", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["precision"], ran.json["backend"]) == ("int8", "onnxruntime")
    manifest = json.loads((engine / "manifest.json").read_text())
    hashes = {one["path"]: one["sha256"] for one in json.loads((bundled.run / "run.json").read_text())["files"]}
    assert manifest["parents"]["onnx"] == hashes["graphs/int8-cpu.onnx"]
    assert "build-engine" in manifest["command"]
    ran = rir("verify", bundled.file, engine, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.json["results"]
    assert row["recorded_by"] == "onnxruntime-int8"  # its bytes are those of the engine in the bundle
    assert row["recorded"]["max_abs_error"] == pytest.approx(0, abs=1e-5)
    assert row["reference"]["max_abs_error"] > 0


def test_other_candidates(bundled: Bundled, made: Made, rir: Runner, tmp_path: Path) -> None:
    assert rir("verify", bundled.file, made.checkpoint).code == 0
    assert rir("verify", bundled.file, made.onnx).code == 0
    (tmp_path / "wrong.onnx").write_bytes(reversed_classes(made.onnx.read_bytes()))
    ran = rir("verify", bundled.file, tmp_path / "wrong.onnx")
    assert ran.code == 3
    assert "against the FP32 graph" in ran.err


def test_one_of_a_bundle_is_a_candidate(bundled: Bundled, made: Made, rir: Runner, tmp_path: Path) -> None:
    """For a checkpoint, on all test images and layer by layer, as if it were a file of its own."""
    ran = rir("verify", made.checkpoint, bundled.file, "--engine", "onnxruntime-int8", "--layers", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["candidate"]["path"] == f"{bundled.file}/onnxruntime-int8"
    assert (ran.json["candidate"]["kind"], ran.json["gate"]["precision"]) == ("engine", "int8")
    assert ran.json["images"] > 32
    nodes = [row["node"] for row in ran.json["layers"]["rows"]]
    assert nodes[-1] == f"{bundled.file}/onnxruntime-int8"
    assert not any("rir-deploy-" in node for node in nodes)
    ran = rir("verify", made.checkpoint, bundled.file, "--engine", "fp16")
    assert ran.code == 0, ran.err
    assert "parity passed (gate fp16)" in ran.out
    forged = forge(bundled, tmp_path / "forged.zip", wrong_graph)
    ran = rir("verify", made.checkpoint, forged, "--engine", "fp16")
    assert ran.code == 3
    assert "parity failed: agreement" in ran.err


def test_a_bundle_is_a_reference_on_other_images_too(bundled: Bundled, made: Made, rir: Runner, tmp_path: Path) -> None:
    """With --data it is its FP32 graph, and all options of a proof go with it."""
    options = ("--data", "digits:test", "--layers", "--max-class-drop", 50, "--json")
    ran = rir("verify", bundled.file, bundled.file, "--engine", "fp16", *options)
    assert ran.code == 0, ran.err
    assert ran.json["reference"]["path"] == f"{bundled.file}/fp32"
    assert ran.json["candidate"]["path"] == f"{bundled.file}/fp16"
    assert ran.json["images"] > 32
    assert ran.json["gate"]["max_class_drop"] == 50
    assert ran.json["drop"]["verdict"] == "cannot be judged"  # it was never trained
    assert rir("verify", bundled.file, bundled.file, "--engine", "fp16", *options, "--margin", 50).code == 3
    (tmp_path / "wrong.onnx").write_bytes(reversed_classes(made.onnx.read_bytes()))
    ran = rir("verify", bundled.file, tmp_path / "wrong.onnx", *options)
    assert ran.code == 3
    assert ran.json["first_divergence"]["block"]


def test_a_bundle_is_held_against_another(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    ran = rir("verify", bundled.file, bundled.file, "--engine", "fp32", "--json")
    assert ran.code == 0, ran.err
    assert [row["name"] for row in ran.json["results"]] == [f"{bundled.file}/fp32"]
    for name in ("int8-cpu", "onnxruntime-int8"):  # held against its own recorded answers
        ran = rir("verify", bundled.file, bundled.file, "--engine", name, "--json")
        assert [row["recorded_by"] for row in ran.json["results"]] == [name]
    forged = forge(bundled, tmp_path / "forged.zip", wrong_graph)
    assert rir("verify", bundled.file, forged, "--engine", "fp16").code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{onnx}", "{zip}"), "choose with --engine: fp32, fp16, int8-cpu"),
        (("{onnx}", "{zip}", "--engine", "fp23"), "did you mean 'fp32'"),
        (("{onnx}",), "REFERENCE and a CANDIDATE"),
        (("{onnx}", "{onnx}", "--engine", "fp32"), "only a bundle"),
        (("{zip}", "{onnx}", "--engine", "fp32"), "leave one out"),
        (("{zip}", "--data", "digits", "--atol", 1), "--data, --atol: a bundle brings"),
        (("{zip}", "--min-agreement", 0), "--min-agreement"),
        (("{zip}", "{onnx}", "--batch", 32), "--batch"),
        (("{zip}", "--layers", "--trust"), "--trust, --layers: a bundle brings"),
        (("{zip}", "{onnx}", "--trust"), "--trust: a bundle brings"),
        (("{zip}", "{zip}"), "choose with --engine: fp32, fp16, int8-cpu"),
        (("{zip}", "--simulate", "--model", "a:b"), "--model, --simulate"),
        (("missing.zip",), "there is no file"),
    ],
)
def test_what_does_not_go_together(
    arguments: tuple[object, ...], words: str, bundled: Bundled, made: Made, rir: Runner
) -> None:
    ran = rir("verify", *(str(one).format(onnx=made.onnx, zip=bundled.file) for one in arguments))
    assert ran.code == 2
    assert words in ran.err


@pytest.mark.parametrize(("low", "high"), [(1, 4096), (1, 5), (3, 7), (8, 8), (40, 64)])
def test_answers_come_in_order_in_batches_that_the_engine_takes(low: int, high: int) -> None:
    sizes = []

    def make_runner(_: Preprocessing) -> Callable[[Any], Any]:
        def run(images: Any) -> Any:
            sizes.append(len(images))
            return images.reshape(len(images), -1)[:, :2].astype(np.float32)

        return run

    images = np.arange(16 * 3, dtype=np.uint8).reshape(16, 1, 3, 1)
    side = Side("x", "engine", "fp32", "", None, "nowhere", make_runner, batch=(low, high))
    found = answers(side, images, None)  # type: ignore[arg-type]
    assert found.tolist() == images.reshape(16, 3)[:, :2].tolist()
    assert all(low <= size <= high for size in sizes)


def test_a_precision_that_the_bundle_does_not_hold(bundled: Bundled, rir: Runner, tmp_path: Path) -> None:
    ran = rir("build-engine", bundled.file, "-o", tmp_path / "e", "--int8", "--backend", "tensorrt-rtx")
    assert ran.code == 2
    assert "holds no int8 graph with the Q/DQ of tensorrt" in ran.err
    assert "int8-cpu" in ran.err
    ran = rir("build-engine", bundled.file, "-o", tmp_path / "e", "--int8", "--data", "digits")
    assert ran.code == 2
    assert "quantised already" in ran.err
    assert not (tmp_path / "e").exists()


def test_a_bundle_is_timed(bundled: Bundled, made: Made, rir: Runner, tmp_path: Path) -> None:
    quick = ("--warmup", 0, "--duration", 0, "--iterations", 2, "--rounds", 1, "--threads", 1, "--json")
    ran = rir("bench", bundled.file, *quick)
    assert ran.code == 0, ran.err
    expected = [(f"{bundled.file}/onnxruntime-{x}", x) for x in ("fp32", "fp16", "int8")]
    assert [(row["engine"], row["precision"]) for row in ran.json["results"]] == expected
    assert all(row["latency_ms"]["median"] > 0 for row in ran.json["results"])
    ran = rir("bench", bundled.file, "--engine", "int8-cpu", *quick)
    assert [row["engine"] for row in ran.json["results"]] == [f"{bundled.file}/int8-cpu"]
    ran = rir("bench", made.onnx, "--engine", "fp32")
    assert ran.code == 2
    assert "none is named" in ran.err
