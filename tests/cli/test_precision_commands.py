"""FP16 and INT8 through the command line: what is made, and every way to get it wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from rir_deploy.onnx_file import graph_sha256, load_onnx
from tests.cli.test_bad_input import refused, untouched
from tests.conftest import Made, Runner


def test_int8_engine_computes_in_integers(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("build-engine", made.onnx, "--int8", "--backend", "onnxruntime", "-o", tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["precision"], ran.json["flavour"]) == ("int8", "cpu")
    table = json.loads((tmp_path / "engine" / "ranges.json").read_text())
    assert table["samples"] == 512
    ran = rir("verify", made.checkpoint, tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["gate"]["precision"] == "int8"
    # Quantisation leaves its mark: an engine that is silently FP32 would not.
    assert ran.json["max_abs_error"] > 1e-4 * ran.json["max_abs_reference"]


def test_openvino_int8_runs_every_convolution_in_integers(made: Made, rir: Runner, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    ran = rir("build-engine", made.onnx, "--int8", "--backend", "openvino", "-o", tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert sum(ran.json["realized"]["conv"].values()) == 6
    assert set(ran.json["realized"]["conv"]) <= {"u8", "i8"}


def test_fp16_is_cast_and_verified(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("build-engine", made.onnx, "--fp16", "--backend", "onnxruntime", "-o", tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    graph = onnx.load(tmp_path / "engine" / "graph.onnx")
    assert {w.data_type for w in graph.graph.initializer if len(w.dims) == 4} == {TensorProto.FLOAT16}
    ran = rir("verify", made.checkpoint, tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["gate"]["precision"] == "fp16"


def test_the_same_table_gives_the_same_file_without_the_data(made: Made, rir: Runner, tmp_path: Path) -> None:
    table, first, second = tmp_path / "ranges.json", tmp_path / "a.onnx", tmp_path / "b.onnx"
    ran = rir("quantize", made.onnx, "-o", first, "--save-ranges", table, "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["quantized"]) == 6
    assert rir("quantize", made.onnx, "-o", second, "--ranges", table).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(table.read_text())["model_sha256"] == graph_sha256(load_onnx(made.onnx))


def test_keep_leaves_a_node_in_float(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--keep", "logits|mean", "--json")
    if ran.code == 2:  # the head has another name under this exporter: take the last one there is
        names = rir("quantize", made.onnx, "-o", tmp_path / "all.onnx", "--json").json["quantized"]
        ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--keep", names[-1].replace("+", r"\+"), "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["quantized"]) == 5
    assert len(ran.json["kept"]) == 1


def test_int8_without_data(made: Made, rir: Runner, tmp_path: Path) -> None:
    """A recipe that brings no data of its own."""
    model = onnx.load(made.onnx)
    for prop in model.metadata_props:
        prop.value = prop.value.replace('"train": "digits:train"', '"test": "digits:test"')
    onnx.save(model, tmp_path / "model.onnx")
    ran = rir("build-engine", tmp_path / "model.onnx", "--int8", "--backend", "onnxruntime", "-o", tmp_path / "engine")
    refused(ran, 2, "--data", "--ranges")
    untouched(tmp_path, "model.onnx")


def test_a_method_that_the_recipe_gets_wrong_is_bad_input(made: Made, rir: Runner, tmp_path: Path) -> None:
    """The same word on the command line is a wrong use of it."""
    (digits,) = Path(__file__).parents[2].glob("calibration/digits.toml")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(digits.read_text().replace('method = "auto"', 'method = "foo"'))
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--recipe", recipe)
    refused(ran, 5, "method must be one of auto")
    untouched(tmp_path, "mine.toml")


def test_precisions_exclude_each_other(made: Made, rir: Runner, tmp_path: Path) -> None:
    refused(rir("build-engine", made.onnx, "--int8", "--fp16", "-o", tmp_path / "engine"), 2, "exclude")


def test_options_that_contradict_each_other(made: Made, rir: Runner, tmp_path: Path) -> None:
    output, table = tmp_path / "out", tmp_path / "r.json"
    build = ("build-engine", made.onnx, "--backend", "onnxruntime", "-o", output)
    refused(rir(*build, "--fp32", "--keep", "x"), 2, "--int8")
    refused(rir(*build, "--samples", "7"), 2, "--int8 and --fp16")
    refused(rir(*build, "--int8", "--ranges", table, "--samples", "7"), 2, "excludes")
    refused(rir("quantize", made.onnx, "-o", output, "--percentile", "99", "--method", "minmax"), 2, "--method")
    refused(rir("quantize", made.onnx, "-o", output, "--method", "foo"), 2, "unknown method 'foo'", "minmax", "auto")
    refused(rir("quantize", made.onnx, "-o", output, "--percentile", "40"), 2, "--percentile 40", "over 50")
    refused(rir("quantize", made.onnx, "-o", output, "--percentile", "nan"), 2, "--percentile")
    refused(rir("quantize", made.onnx, "-o", output, "--rounding", "foo", "--samples", "32"), 2, "unknown rounding")
    refused(rir("quantize", made.onnx, "-o", output, "--keep", ".*", "--samples", "32"), 2, "nothing to quantise")
    refused(rir("quantize", made.onnx, "-o", output, "--save-ranges", output), 2, "one file")
    refused(rir("quantize", made.onnx, "-o", output, "--save-ranges", tmp_path / "r.safetensors"), 2, "two files")
    refused(rir("quantize", made.onnx, "-o", output, "--save-ranges", "/proc/r.json"), 2, "cannot write")
    untouched(tmp_path)


@pytest.mark.parametrize("folder", ["q.onnx", "r.json", "r.safetensors", "s.json"])
def test_a_folder_in_the_way_leaves_nothing(made: Made, rir: Runner, tmp_path: Path, folder: str) -> None:
    """Whatever --force says; and what was there before stays."""
    names = ("q.onnx", "r.json", "r.safetensors", "s.json")
    for name in names:
        (tmp_path / name).write_text("old")
    (tmp_path / folder).unlink()
    (tmp_path / folder).mkdir()
    options = ("--save-ranges", tmp_path / "r.json", "--sensitivity", tmp_path / "s.json", "--force")
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", *options, "--samples", "32")
    refused(ran, 2, folder, "it is a folder")
    untouched(tmp_path, *names)
    assert all((tmp_path / name).read_text() == "old" for name in names if name != folder)


def test_all_outputs_of_quantize_appear_or_none(
    made: Made, rir: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if path.name == "s.json":
            raise PermissionError(1, "the disk gave up", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    options = ("--save-ranges", tmp_path / "r.json", "--sensitivity", tmp_path / "s.json", "--samples", "32")
    refused(rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", *options), 2, "the disk gave up")
    untouched(tmp_path)
    monkeypatch.undo()
    assert rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", *options).code == 0
    untouched(tmp_path, "q.onnx", "r.json", "r.safetensors", "s.json")


def test_fp16_with_data_needs_to_know_the_preprocessing(made: Made, rir: Runner, tmp_path: Path) -> None:
    model = onnx.load(made.onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    ran = rir("build-engine", tmp_path / "bare.onnx", "--fp16", "--data", "digits", "-o", tmp_path / "e")
    refused(ran, 2, "--recipe")


def test_the_range_table_of_an_engine_is_vouched_for(made: Made, rir: Runner, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    assert rir("build-engine", made.onnx, "--int8", "--backend", "onnxruntime", "-o", engine).code == 0
    (engine / "ranges.json").write_text("{}")
    refused(rir("inspect", engine), 5, "ranges.json")


def test_int8_cannot_be_made_of_int8(made: Made, rir: Runner, tmp_path: Path) -> None:
    assert rir("quantize", made.onnx, "-o", tmp_path / "q.onnx").code == 0
    refused(rir("quantize", tmp_path / "q.onnx", "-o", tmp_path / "qq.onnx"), 5, "quantised already")
    ran = rir("build-engine", tmp_path / "q.onnx", "--fp16", "--backend", "onnxruntime", "-o", tmp_path / "engine")
    refused(ran, 2, "start from the FP32 model")


def test_a_target_that_does_not_exist(made: Made, rir: Runner, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    ran = rir("build-engine", made.onnx, "--backend", "tensorrt-rtx", "--target", "sm88", "-o", tmp_path / "engine")
    refused(ran, 2, "sm88", "sm75", "sm120")
    untouched(tmp_path)


def test_the_cpu_flavour_is_refused_by_tensorrt(made: Made, rir: Runner, tmp_path: Path) -> None:
    """uint8 with zero point 0 would be read as int8 without a word."""
    pytest.importorskip("tensorrt_rtx")
    assert rir("quantize", made.onnx, "-o", tmp_path / "cpu.onnx", "--qdq", "cpu").code == 0
    ran = rir("build-engine", tmp_path / "cpu.onnx", "--backend", "tensorrt-rtx", "-o", tmp_path / "engine")
    refused(ran, 5, "--qdq tensorrt")
    untouched(tmp_path, "cpu.onnx")


def test_a_range_table_of_another_model(made: Made, rir: Runner, tmp_path: Path) -> None:
    table, other = tmp_path / "ranges.json", tmp_path / "other.onnx"
    assert rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--save-ranges", table).code == 0
    model = ir.load(made.onnx)
    weight = next(v for v in model.graph.initializers.values() if v.shape is not None and len(v.shape) == 4)
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.5), name=weight.name)
    ir.save(model, other)
    refused(rir("quantize", other, "-o", tmp_path / "o.onnx", "--ranges", table), 5, "another model")
    table.write_text("{}")
    refused(rir("quantize", made.onnx, "-o", tmp_path / "o.onnx", "--ranges", table), 5, "malformed")
    refused(rir("quantize", made.onnx, "-o", tmp_path / "o.onnx", "--ranges", tmp_path / "none.json"), 2, "none.json")


def test_one_class_or_nan_calibration_images(made: Made, rir: Runner, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=np.full(40, 3))
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--data", tmp_path / "one.npz", "--samples", "32")
    refused(ran, 5, "one class")
    np.savez(tmp_path / "nan.npz", images=np.full((40, 8, 8, 1), np.nan, dtype=np.float32))
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--data", tmp_path / "nan.npz", "--samples", "32")
    refused(ran, 5, "nan.npz")
    np.savez(tmp_path / "flat.npz", images=np.zeros((40, 8, 8, 1), dtype=np.uint8))
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--data", tmp_path / "flat.npz", "--samples", "32")
    refused(ran, 5, "constant")
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--data", tmp_path / "one.npz", "--samples", "500")
    refused(ran, 5, "500")
    untouched(tmp_path, "flat.npz", "nan.npz", "one.npz")


def test_a_tensorrt_rtx_engine_without_a_driver(made: Made, rir: Runner, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from rir_deploy.engines.tensorrt_gpu import Gpu, probe_gpu

    engine = tmp_path / "engine"
    ran = rir(
        "build-engine", made.onnx, "--int8", "--backend", "tensorrt-rtx", "--target", "sm89", "-o", engine, "--json"
    )
    assert ran.code == 0, ran.err
    assert ran.json["targets"] == ["sm89"]
    if isinstance(probe_gpu(), Gpu):
        pytest.skip("this machine has a GPU")
    refused(rir("verify", made.checkpoint, engine), 4, "driver")
    ran = rir("verify", made.checkpoint, engine, "--simulate", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["simulation"] is True
    assert "simulation" in ran.json["candidate"]["runs_on"]


def test_four_bits_out_of_a_table_are_refused_where_they_would_be_float(
    made: Made, rir: Runner, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    table, engine = tmp_path / "r4.json", tmp_path / "engine"
    quantize = ("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--qdq", "cpu", "--weight-bits", "4")
    assert rir(*quantize, "--samples", "16", "--save-ranges", table).code == 0
    build = ("build-engine", made.onnx, "--int8", "--ranges", table, "-o", engine)
    refused(rir(*build, "--backend", "openvino"), 2, "4-bit weights", "--backend onnxruntime")
    assert not engine.exists()
    ran = rir(*build, "--backend", "onnxruntime", "--json")
    assert ran.code == 0, ran.err
    few, bits = ran.json["warnings"]
    assert "calibrated on 16 images only" in few
    assert "not computed in 4 bits" in bits
    found = rir("inspect", engine, "--json").json
    assert (found["notes"], found["kept"]) == ([bits], [])
    assert "not computed in 4 bits" in rir("inspect", engine).out


def test_layers_that_are_kept_are_said_of_an_engine_too(made: Made, rir: Runner, tmp_path: Path) -> None:
    build = ("build-engine", made.onnx, "--int8", "--samples", "32", "--backend", "onnxruntime", "-o", tmp_path / "e")
    ran = rir(*build, "--keep", r"^relu_6\+", "--reduced-range", "--json")
    assert ran.code == 0, ran.err
    (kept,) = rir("inspect", tmp_path / "e", "--json").json["kept"]
    assert kept["node"] == ran.json["kept"][0]["node"]
    assert r"asked for by '^relu_6\+'" in kept["reason"]
    graph = onnx.load(tmp_path / "e" / "graph.onnx").graph
    weights = [
        numpy_helper.to_array(w) for w in graph.initializer if w.data_type == TensorProto.INT8 and len(w.dims) == 4
    ]
    assert weights
    assert max(abs(weight.astype(int)).max() for weight in weights) <= 64  # what --reduced-range asks for
    refused(rir("build-engine", made.onnx, "--fp16", "--reduced-range", "-o", tmp_path / "f"), 2, "--int8")


def test_one_image_is_one_image_and_none_was_held_back(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--samples", "2", "--method", "auto")
    assert ran.code == 0, ran.err
    assert "calibrated on 2 images, " in ran.out
    assert "dB on the same images" in ran.out
    assert "held-back" not in ran.out
    ran = rir("quantize", made.onnx, "-o", tmp_path / "r.onnx", "--samples", "32", "--method", "auto")
    assert "dB on held-back images" in ran.out


@pytest.mark.parametrize(
    ("flavour", "flags", "halves"),
    [("tensorrt", (), True), ("cpu", (), False), ("tensorrt", ("--rest", "fp32"), False)],
)
def test_the_rest_is_what_an_engine_would_have(
    flavour: str, flags: tuple[str, ...], halves: bool, made: Made, rir: Runner, tmp_path: Path
) -> None:
    quantize = (
        "quantize",
        made.onnx,
        "-o",
        tmp_path / "q.onnx",
        "--qdq",
        flavour,
        "--samples",
        "32",
        "--method",
        "minmax",
    )
    assert rir(*quantize, *flags).code == 0
    graph = onnx.load(tmp_path / "q.onnx").graph
    scales = {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
    kinds = {w.data_type for w in graph.initializer if w.name in scales}
    assert kinds == {TensorProto.FLOAT16 if halves else TensorProto.FLOAT}


def test_a_table_of_another_rest_says_what_it_was_made_for(made: Made, rir: Runner, tmp_path: Path) -> None:
    table = tmp_path / "r.json"
    quantize = ("quantize", made.onnx, "--samples", "32", "--method", "minmax", "--save-ranges", table)
    assert rir(*quantize, "-o", tmp_path / "q.onnx", "--rest", "fp32").code == 0
    again = ("quantize", made.onnx, "--ranges", table, "-o", tmp_path / "r.onnx")
    refused(rir(*again), 5, "made for --rest fp32", "--rest fp16 was asked for", "or calibrate again")
    refused(rir(*again, "--qdq", "cpu"), 5, "made for --qdq tensorrt", "--qdq cpu was asked for")
    assert rir(*again, "--rest", "fp32").code == 0
