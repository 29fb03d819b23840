"""A model is judged by the precision of its layers, whoever wrote it and whatever it records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from rir_deploy.artifacts import METADATA_KEY, Provenance
from rir_deploy.engines.graph import graph_precision, model_precision
from rir_deploy.onnx_file import load_onnx
from tests.conftest import Runner

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
IMAGES[:, :, :, 0] = IMAGES[:, :, :, 0] * RANDOM.uniform(size=(64, 1, 1))
X = ((IMAGES / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype("f4")
WEIGHTS = {
    "w": (RANDOM.standard_normal((8, 3, 3, 3)) * 0.3).astype("f4"),
    "v": (RANDOM.standard_normal((8, 8, 3, 3)) * 0.3).astype("f4"),
    "head": RANDOM.standard_normal((8, 4)).astype("f4"),
    "bias": np.zeros(4, "f4"),
}


def network(weights: dict[str, np.ndarray] = WEIGHTS) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], name="second"),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["logits"], name="head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(proto: onnx.ModelProto) -> np.ndarray:
    import onnxruntime

    return np.asarray(onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": X})[0])


WEIGHTS["bias"] = -np.median(answers(network()), axis=0).astype("f4")


@pytest.fixture
def given(tmp_path: Path) -> tuple[object, ...]:
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=answers(network()).argmax(axis=1))
    (tmp_path / "r.toml").write_text(
        'classes = ["a", "b", "c", "d"]\n[preprocess]\nsize = [16, 16]\nmode = "RGB"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
    )
    onnx.save(network(), tmp_path / "m.onnx")
    return ("--data", tmp_path / "data.npz", "--recipe", tmp_path / "r.toml")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = iter([{"x": part} for part in np.split(X, 4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def foreign(kind: str, folder: Path, *, recorded: str | None = None) -> Path:
    """The network in INT8, by ONNX Runtime's own quantiser; ``recorded`` is what the metadata says of its precision."""
    path, source = folder / f"{kind}.onnx", folder / "source.onnx"
    proto = network()
    if recorded is not None:
        proto.metadata_props.add(key=METADATA_KEY, value=Provenance(precision=recorded).to_json())
    onnx.save(proto, source)
    if kind == "dynamic":
        quantize_dynamic(source, path)
    else:
        chosen = QuantFormat.QDQ if kind == "qdq" else QuantFormat.QOperator
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(source, path, Reader(), quant_format=chosen, **types)
    if recorded is not None:
        written = onnx.load(path)
        del written.metadata_props[:]
        written.metadata_props.extend(proto.metadata_props)
        onnx.save(written, path)
    return path


@pytest.mark.parametrize("recorded", [None, "fp32", "fp16"])
@pytest.mark.parametrize("kind", ["qdq", "operators", "dynamic"])
def test_a_foreign_int8_model_is_judged_as_int8(
    kind: str, recorded: str | None, given: tuple[object, ...], tmp_path: Path, rir: Runner
) -> None:
    path = foreign(kind, tmp_path, recorded=recorded)
    ran = rir("verify", tmp_path / "m.onnx", path, "--json", *given)
    assert ran.json["gate"]["precision"] == ran.json["candidate"]["precision"] == "int8"
    assert ran.code == 0, ran.json["failures"]


def test_a_claim_of_int8_does_not_soften_the_gate(given: tuple[object, ...], tmp_path: Path, rir: Runner) -> None:
    proto = network({**WEIGHTS, "w": WEIGHTS["w"] * np.float32(1.01)})
    proto.metadata_props.add(key=METADATA_KEY, value=Provenance(precision="int8").to_json())
    onnx.save(proto, tmp_path / "claims.onnx")
    ran = rir("verify", tmp_path / "m.onnx", tmp_path / "claims.onnx", "--json", *given)
    assert (ran.code, ran.json["gate"]["precision"]) == (3, "fp32")


def test_bench_and_engines_say_the_same(given: tuple[object, ...], tmp_path: Path, rir: Runner) -> None:
    path = foreign("qdq", tmp_path, recorded="fp32")
    timed = rir("bench", path, "--duration", "0.05", "--rounds", "1", "--json")
    assert {row["precision"] for row in timed.json["results"]} == {"int8"}
    build = ("build-engine", path, "-o", tmp_path / "e", "--backend", "onnxruntime")
    assert rir(*build, "--json", *given[2:]).json["precision"] == "int8"
    assert rir("verify", tmp_path / "m.onnx", tmp_path / "e", *given).code == 0
    ran = rir(*build, "--fp16", "--force", *given[2:])
    assert ran.code == 2
    assert "is int8 already" in ran.err


TINY = {**WEIGHTS, "w": WEIGHTS["w"] * np.float32(1e-6), "v": WEIGHTS["v"] * np.float32(1e-6)}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_fp16_engine_loads_even_where_its_convolutions_stay_fp32(
    backend: str, given: tuple[object, ...], tmp_path: Path, rir: Runner
) -> None:
    """Weights under FP16's range keep both convolutions in FP32; the head is cast."""
    onnx.save(network({**TINY, "bias": np.zeros(4, "f4")}), tmp_path / "tiny.onnx")
    build = ("build-engine", tmp_path / "tiny.onnx", "-o", tmp_path / "e", "--fp16", "--backend", backend)
    ran = rir(*build, "--no-fold", "--json", *given[2:])
    assert ran.code == 0, ran.err
    assert [node["node"] for node in ran.json["kept"]] == ["first", "second"]
    for command in (("inspect", tmp_path / "e"), ("bench", tmp_path / "e", "--duration", "0.05", "--rounds", "1")):
        assert rir(*command).code == 0
    ran = rir("verify", tmp_path / "tiny.onnx", tmp_path / "e", "--json", *given)
    assert "its manifest says" not in ran.err
    assert ran.json["gate"]["precision"] == "fp16"


def test_an_fp16_engine_without_any_layer_in_fp16_is_refused(
    given: tuple[object, ...], tmp_path: Path, rir: Runner
) -> None:
    tiny = {name: array * np.float32(1e-6) for name, array in WEIGHTS.items()}
    onnx.save(network(tiny), tmp_path / "tiny.onnx")
    build = ("build-engine", tmp_path / "tiny.onnx", "-o", tmp_path / "e", "--fp16", "--backend", "onnxruntime")
    ran = rir(*build, "--no-fold", *given[2:])
    assert ran.code == 5
    assert "no layer of the model can compute in FP16 (first: its weight 'w' reaches" in ran.err
    assert not (tmp_path / "e").exists()


def _single(node: onnx.NodeProto, weight: np.ndarray, dims: list[int | str]) -> ir.Model:
    dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name, shape in (("x", dims), ("y", None)))
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("kind", "shape"), [("MatMul", (4, 5)), ("Gemm", (4, 5)), ("ConvTranspose", (3, 4, 3, 3))])
def test_every_kind_of_layer_tells(kind: str, shape: tuple[int, ...], dtype: str) -> None:
    dims: list[int | str] = ["N", *shape[:1], 8, 8] if len(shape) == 4 else ["N", *shape[:1]]
    model = _single(helper.make_node(kind, ["x", "w"], ["y"]), np.ones(shape, dtype), dims)
    assert graph_precision(model) == model_precision(model) == {"float32": "fp32", "float16": "fp16"}[dtype]


def test_the_metadata_of_a_cast_is_believed_where_no_layer_could_be(tmp_path: Path) -> None:
    proto = network(TINY)
    proto.metadata_props.add(key=METADATA_KEY, value=Provenance(precision="fp16").to_json())
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_onnx(tmp_path / "m.onnx")
    assert (graph_precision(model), model_precision(model)) == ("fp32", "fp16")
