"""Bad input: the exit code, one sentence with the way out, nothing left behind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from tests.conftest import Made, Ran, Runner


def refused(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, (ran.code, ran.err)
    assert ran.out == ""
    (line,) = ran.err.strip().splitlines()
    assert line.startswith("rir-deploy: error: ")
    for word in words:
        assert word in line


def untouched(folder: Path, *names: str) -> None:
    assert sorted(os.listdir(folder)) == sorted(names)


def test_truncated_onnx(made: Made, rir: Runner, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(made.onnx.read_bytes()[:5000])
    refused(rir("fold", bad, "-o", tmp_path / "out.onnx"), 5, "bad.onnx", "export it again")
    refused(rir("build-engine", bad, "-o", tmp_path / "out", "--backend", "onnxruntime"), 5, "bad.onnx")
    untouched(tmp_path, "bad.onnx")


def test_not_an_onnx_file_at_all(rir: Runner, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("hello, this is not a model")
    refused(rir("inspect", tmp_path / "empty.onnx"), 5, "empty.onnx")
    refused(rir("inspect", tmp_path / "text.onnx"), 5, "text.onnx")


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_pickle_that_is_not_plain_tensors(rir: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pt").write_bytes(pickle.dumps({"weight": _Dangerous()}))
    refused(rir("export", "evil.pt", "-o", "out.onnx", "--recipe", "cifar10"), 5, "evil.pt")
    untouched(tmp_path, "evil.pt")


def test_nan_weights_in_checkpoint_and_graph(made: Made, rir: Runner, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    tensors = load_file(made.checkpoint)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0, 0, 0] = np.nan
    with safe_open(made.checkpoint, "np") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "nan.safetensors", metadata)
    refused(rir("export", tmp_path / "nan.safetensors", "-o", tmp_path / "out.onnx"), 5, name)

    model = onnx.load(made.onnx)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    array = numpy_helper.to_array(weight).copy()
    array[0] = np.inf
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, tmp_path / "inf.onnx")
    refused(rir("fold", tmp_path / "inf.onnx", "-o", tmp_path / "out.onnx"), 5, weight.name, "infinite")
    untouched(tmp_path, "inf.onnx", "nan.safetensors")


def test_wrong_image_size(made: Made, rir: Runner, tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", images=np.zeros((3, 9, 9, 1), dtype=np.uint8))
    refused(rir("verify", made.onnx, made.engine, "--data", tmp_path / "large.npz"), 5, "9x9", "8x8")
    # The checkpoint was made for one-channel 8x8 images.
    ran = rir("export", made.checkpoint, "-o", tmp_path / "out.onnx", "--recipe", "cifar10")
    refused(ran, 2, "cifar10", "digits")


def test_labels_out_of_range(made: Made, rir: Runner, tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "labels.npz", images=images, labels=np.array([0, 10, 1]))
    refused(rir("verify", made.onnx, made.engine, "--data", tmp_path / "labels.npz"), 5, "10")


def _external(path: Path, location: str) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), dtype=np.float32), "w")
    external_data_helper.set_external_data(weight, location=location, offset=0, length=432)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6, 6])
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "sub/../../secret.bin", ""])
def test_external_data_outside_the_folder(location: str, rir: Runner, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    _external(folder / "model.onnx", location)
    refused(rir("fold", folder / "model.onnx", "-o", tmp_path / "out.onnx"), 5, "outside its own folder")
    untouched(tmp_path, "model", "secret.bin")


def test_external_data_beside_the_model_is_read(rir: Runner, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(108, dtype=np.float32).tobytes())
    _external(tmp_path / "model.onnx", "weights.bin")
    assert rir("fold", tmp_path / "model.onnx", "-o", tmp_path / "out.onnx").code == 0
    _external(tmp_path / "model.onnx", "missing.bin")
    refused(rir("fold", tmp_path / "model.onnx", "-o", tmp_path / "out2.onnx"), 5, "missing.bin")


def test_unwritable_output(made: Made, rir: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(rir("fold", made.onnx, "-o", tmp_path / "file" / "out.onnx"), 2, "cannot write")
    refused(rir("build-engine", made.onnx, "-o", tmp_path / "file" / "engine"), 2, "cannot write")
    refused(rir("fold", made.onnx, "-o", "/proc/out.onnx"), 2, "cannot write")
    untouched(tmp_path, "file")


def test_existing_output(made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("precious")
    refused(rir("fold", made.onnx, "-o", output), 2, "--force")
    assert output.read_text() == "precious"
    assert rir("fold", made.onnx, "-o", output, "--force").code == 0
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "keep").write_text("precious")
    refused(rir("build-engine", made.onnx, "-o", engine, "--backend", "onnxruntime"), 2, "--force")
    assert (engine / "keep").read_text() == "precious"
    again = ("build-engine", made.onnx, "-o", engine, "--backend", "onnxruntime", "--force")
    refused(rir(*again), 2, "is no engine")
    assert (engine / "keep").read_text() == "precious"
    (engine / "manifest.json").write_text("{}")
    ran = rir(*again)
    assert ran.code == 0, ran.err
    assert not (engine / "keep").exists()
    untouched(tmp_path, "engine", "out.onnx")


def test_a_failure_under_force_keeps_the_old_output(made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("precious")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"garbage")
    refused(rir("fold", bad, "-o", output, "--force"), 5, "bad.onnx")
    assert output.read_text() == "precious"


def test_unknown_names_come_with_the_closest(made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "out"
    refused(rir("export", made.checkpoint, "-o", output, "--recipe", "digts"), 2, "did you mean 'digits'")
    refused(rir("build-engine", made.onnx, "-o", output, "--backend", "onxruntime"), 2, "did you mean 'onnxruntime'")
    refused(rir("verify", made.onnx, made.engine, "--precision", "fp23"), 2, "did you mean 'fp32'")
    refused(rir("exprot"), 2, "did you mean 'export'")
    refused(rir("export", made.checkpoint, "-o", output, "--no-such-option"), 2, "--no-such-option")
    untouched(tmp_path)


def test_a_backend_that_is_not_installed(
    made: Made, rir: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    ran = rir("build-engine", made.onnx, "-o", tmp_path / "engine", "--backend", "onnxruntime")
    refused(ran, 4, "ONNX Runtime is not installed", "python -m pip install onnxruntime")
    untouched(tmp_path)


def test_a_failed_gate(made: Made, rir: Runner, tmp_path: Path) -> None:
    model = onnx.load(made.onnx)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(array * np.float32(1.02), weight.name))
    onnx.save(model, tmp_path / "scaled.onnx")
    ran = rir("verify", made.checkpoint, tmp_path / "scaled.onnx")
    assert ran.code == 3
    assert "parity failed" in ran.err
    assert "FAILED" in ran.out
    ran = rir("verify", made.checkpoint, tmp_path / "scaled.onnx", "--json")
    assert ran.code == 3
    assert ran.json["passed"] is False
    assert ran.json["failures"]


def test_a_tampered_engine(made: Made, rir: Runner, tmp_path: Path) -> None:
    import shutil

    engine = tmp_path / "engine"
    shutil.copytree(made.engine, engine)
    data = bytearray((engine / "graph.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (engine / "graph.onnx").write_bytes(data)
    refused(rir("verify", made.onnx, engine), 5, "rebuild it with", "build-engine")


def test_classes_of_another_data_set(made: Made, rir: Runner, tmp_path: Path) -> None:
    from rir_deploy.recipe import load_recipe

    recipe = tmp_path / "few.toml"
    text = (Path(__file__).parents[2] / "calibration" / "digits.toml").read_text()
    names = ", ".join(f'"{name}"' for name in load_recipe("digits").classes)
    recipe.write_text(text.replace(names, names + ', "ten"'))
    ran = rir("export", made.checkpoint, "-o", tmp_path / "out.onnx", "--recipe", recipe)
    refused(ran, 5, "10 outputs", "11 classes")


def test_paths_that_cannot_be_looked_at(made: Made, rir: Runner, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    refused(rir("fold", made.onnx, "-o", long), 2, "cannot write")
    refused(rir("inspect", long), 2, "cannot be looked at")
    refused(rir("fold", tmp_path, "-o", tmp_path / "out.onnx"), 2, "is a folder")
    refused(rir("fold", made.onnx, "-o", ""), 2, "empty")


def test_a_second_input(rir: Runner, tmp_path: Path) -> None:
    x, extra = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 8, 8]) for name in ("x", "extra"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x, extra], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "two.onnx"
    )
    two = tmp_path / "two.onnx"
    refused(rir("verify", two, two, "--recipe", "digits"), 5, "2 inputs")
    refused(rir("build-engine", two, "-o", tmp_path / "e", "--backend", "onnxruntime"), 5, "2 inputs")


def test_a_batch_that_the_graph_does_not_take(rir: Runner, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 64])
    shape = numpy_helper.from_array(np.array([1, 64]), "shape")
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", [x], [y], [shape])
    path = tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    refused(rir("verify", path, path, "--recipe", "digits"), 5, "cannot run a batch of 32")


@pytest.mark.parametrize("change", [{"precision": "fp16"}, {"backend": "other"}, {"batch": [float("inf"), 1, 2]}])
def test_a_manifest_that_does_not_match(change: dict[str, object], made: Made, rir: Runner, tmp_path: Path) -> None:
    import json
    import shutil

    engine = tmp_path / "engine"
    shutil.copytree(made.engine, engine)
    data = json.loads((engine / "manifest.json").read_text())
    (engine / "manifest.json").write_text(json.dumps({**data, **change}))
    refused(rir("verify", made.onnx, engine), 5, "rebuild")


def test_a_deeply_nested_manifest(made: Made, rir: Runner, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "manifest.json").write_text("[" * 200_000)
    refused(rir("inspect", engine), 5, "manifest.json")


def test_errors_as_json(rir: Runner, tmp_path: Path) -> None:
    ran = rir("inspect", tmp_path / "missing.onnx", "--json")
    assert ran.code == 2
    assert ran.json["error"]["exit_code"] == 2
    assert "missing.onnx" in ran.json["error"]["message"]


def test_no_recipe(made: Made, rir: Runner, tmp_path: Path) -> None:
    model = onnx.load(made.onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    refused(rir("verify", tmp_path / "bare.onnx", tmp_path / "bare.onnx"), 2, "--recipe")


LONG = "9" * 5000


@pytest.mark.parametrize("number", [LONG, "1" * 4301, "9" * 19])
def test_numbers_of_any_length_are_usage(number: str, made: Made, rir: Runner, tmp_path: Path) -> None:
    """Python reads no more than 4,300 digits."""
    engine = ("-o", tmp_path / "e", "--backend", "onnxruntime")
    for arguments in (
        ("bench", made.engine, "--batch", number),
        ("bench", made.engine, "--batch", f"1,{number}"),
        ("export", made.checkpoint, "-o", tmp_path / "x.onnx", "--recipe", "digits", "--image-size", number),
        ("export", made.checkpoint, "-o", tmp_path / "x.onnx", "--recipe", "digits", "--image-size", f"8x{number}"),
        ("build-engine", made.onnx, *engine, "--batch", f"1,1,{number}"),
        ("build-engine", made.onnx, *engine, "--batch", f"{number},{number},{number}"),
    ):
        refused(rir(*arguments), 2, "write")
    untouched(tmp_path)


@pytest.mark.parametrize("size", ["0", "8x0", "x", "8x", "8x8x8", "-8", ""])
def test_sizes_that_are_none(size: str, made: Made, rir: Runner, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "x.onnx", "--recipe", "digits")
    refused(rir("export", made.checkpoint, *output, "--image-size", size), 2, "32x48")


def test_a_range_table_with_a_long_number(made: Made, rir: Runner, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(f'{{"samples": {LONG}}}')
    output = ("-o", tmp_path / "q.onnx", "--recipe", "digits", "--qdq", "cpu")
    ran = rir("quantize", made.onnx, *output, "--ranges", tmp_path / "t.json")
    refused(ran, 5, "an integer that is out of range", "calibrate again")
    assert "sys." not in ran.err
