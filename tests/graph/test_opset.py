"""Older opsets are raised where a pass needs it, and the model answers as it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import InputError
from rir_deploy.fold import fold
from rir_deploy.graph import opset as module
from rir_deploy.graph.opset import convert_opset
from tests.conftest import Runner

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 16, 16)).astype("f4")
WEIGHTS = {
    "w": (RANDOM.standard_normal((8, 3, 3, 3)) * 0.3).astype("f4"),
    "u": (RANDOM.standard_normal((8, 3, 3, 3)) * 0.3).astype("f4"),
    "head": RANDOM.standard_normal((8, 4)).astype("f4"),
    "scales": np.array([1, 1, 2, 2], "f4"),
}
Nodes = list[onnx.NodeProto]


def node(kind: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), ["m"], name=f"n_{kind}", **attributes)


# What stands between the block and the head, and the opset that the model is written in: each changed its form since.
CASES: dict[str, tuple[int, Callable[[], Nodes]]] = {
    "sigmoid 7": (7, lambda: [node("Sigmoid", "h")]),
    "clip 9": (9, lambda: [node("Clip", "h", min=0.1, max=1.0)]),
    "resize 10": (10, lambda: [node("Resize", "h", "scales", mode="linear")]),
    "nearest 10": (10, lambda: [node("Resize", "h", "scales", mode="nearest")]),
    "upsample 9": (9, lambda: [node("Upsample", "h", "scales", mode="nearest")]),
    "pad 9": (9, lambda: [node("Pad", "h", pads=[0, 0, 1, 1, 0, 0, 1, 1])]),
    "slice 9": (9, lambda: [node("Slice", "h", starts=[1], ends=[5], axes=[2])]),
    "dropout 9": (9, lambda: [node("Dropout", "h", ratio=0.5)]),
    "softmax 11": (11, lambda: [node("Softmax", "h", axis=1)]),
    "silu 12": (12, lambda: [helper.make_node("Sigmoid", ["h"], ["s"]), node("Mul", "h", "s")]),
    "leaky relu 13": (13, lambda: [node("LeakyRelu", "h", alpha=0.1)]),
    "reduce 17": (17, lambda: [node("ReduceMax", "h", axes=[2], keepdims=1)]),
    "resize 17": (17, lambda: [node("Resize", "h", "", "scales", mode="nearest")]),
}


def model(case: str) -> ir.Model:
    """A dual-stream block, the case, and a head."""
    opset, inside = CASES[case]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4, name="first"),
        helper.make_node("Conv", ["x", "u"], ["b"], pads=[1] * 4),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["h"]),
        *inside(),
        helper.make_node("GlobalAveragePool", ["m"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["logits"], name="head"),
    ]
    used = {name for one in nodes for name in one.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items() if name in used]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    proto.metadata_props.add(key="owner", value="me")
    return ir.from_proto(proto)


def answer(source: ir.Model | Path) -> NDArray[np.float32]:
    given = str(source) if isinstance(source, Path) else ir.to_proto(source).SerializeToString()
    return np.asarray(onnxruntime.InferenceSession(given).run(None, {"x": X})[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("opset", [13, 19, 21])
def test_a_converted_model_answers_as_it_did(case: str, opset: int) -> None:
    original = model(case)
    if CASES[case][0] >= opset:
        assert convert_opset(original, opset) is original
        return
    converted = convert_opset(original, opset)
    np.testing.assert_allclose(answer(converted), answer(original), rtol=1e-5, atol=1e-6)
    if converted is not original:  # else its number alone can be raised
        assert converted.graph.opset_imports[""] == opset
        assert converted.metadata_props["owner"] == "me"
        assert {"first", "head"} <= {one.name for one in converted.graph}
        assert set(converted.graph.initializers) >= set(original.graph.initializers) - {"scales"}
    assert original.graph.opset_imports[""] == CASES[case][0]


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0] < 11])
def test_an_older_model_folds(case: str) -> None:
    original = model(case)
    result = fold(original)
    assert (result.before.convs, result.after.convs) == (2, 1)
    np.testing.assert_allclose(answer(result.model), answer(original), rtol=1e-4, atol=1e-5)


def test_where_nothing_folds_the_model_stays_as_it_came() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, None, None]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(WEIGHTS["w"], "w")])
    single = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=7))
    result = fold(single)
    assert not result.modified
    assert ir.to_proto(result.model) == ir.to_proto(single)


@pytest.mark.parametrize("flavour", ["cpu", "tensorrt"])
@pytest.mark.parametrize("case", CASES)
def test_an_older_model_is_calibrated(case: str, flavour: str, tmp_path: Path, rir: Runner) -> None:
    ir.save(model(case), tmp_path / "in.onnx")
    pixels = RANDOM.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(40) % 4)
    (tmp_path / "r.toml").write_text(
        'classes = ["a", "b", "c", "d"]\n[preprocess]\nsize = [16, 16]\nmode = "RGB"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n[calibration]\nsamples = 32\n"
    )
    given = ("--data", tmp_path / "data.npz", "--recipe", tmp_path / "r.toml", "--qdq", flavour)
    quantize = ("quantize", tmp_path / "in.onnx", "-o", tmp_path / "q.onnx", "--method", "minmax")
    ran = rir(*quantize, *given, "--save-ranges", tmp_path / "ranges.json")
    assert ran.code == 0, ran.err
    before, after = answer(tmp_path / "in.onnx"), answer(tmp_path / "q.onnx")
    assert 10 * np.log10(np.square(before).sum() / np.square(after - before).sum()) > 20
    again = ("quantize", tmp_path / "in.onnx", "-o", tmp_path / "again.onnx", "--ranges", tmp_path / "ranges.json")
    assert rir(*again, "--recipe", tmp_path / "r.toml", "--qdq", flavour).code == 0
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()


def test_a_wrong_conversion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were onnx's converter to change the model, its result would not be taken."""
    right = onnx.version_converter.convert_version

    def wrong(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        converted = right(proto, opset)
        tensor = next(one for one in converted.graph.initializer if one.name == "w")
        tensor.CopyFrom(numpy_helper.from_array(WEIGHTS["w"] * np.float32(1.01), "w"))
        return converted

    monkeypatch.setattr(module.onnx.version_converter, "convert_version", wrong)
    with pytest.raises(InputError, match=r"would change it .*: export the model with opset 13 or newer"):
        convert_opset(model("clip 9"), 13)


def test_too_old_a_model_is_refused() -> None:
    old = model("sigmoid 7")
    old.graph.opset_imports[""] = 6
    with pytest.raises(InputError, match="opset 6, which cannot be converted: export the model with opset 11"):
        convert_opset(old, 11)
