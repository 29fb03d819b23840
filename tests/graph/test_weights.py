"""Infinities are refused in weights, and allowed wherever they are no weights, in every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import InputError
from rir_deploy.onnx_file import load_onnx
from tests.conftest import Runner

INF = np.float32(np.inf)
RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "w": (RANDOM.standard_normal((8, 3, 3, 3)) * 0.3).astype("f4"),
    "v": (RANDOM.standard_normal((8, 8, 3, 3)) * 0.3).astype("f4"),
    "head": RANDOM.standard_normal((8, 4)).astype("f4"),
    "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
    "low": -INF,
    "zero": np.float32(0),
    "high": INF,
    "shape": np.array([14, 14]),
    "one": np.array(1),
    "ones": np.tri(14).astype("f4"),
    "mask": np.where(np.tri(14, dtype=bool), 0, -INF).astype("f4"),
}
# Each takes the map ``h`` [N, 8, 14, 14] and gives ``m``, with infinities on the way.
ORDINARY = {
    "a pad before a maximum": [
        helper.make_node("Pad", ["h", "pads", "low"], ["p"]),
        helper.make_node("MaxPool", ["p"], ["m"], kernel_shape=[3, 3], strides=[2, 2]),
    ],
    "the bounds of a clip": [helper.make_node("Clip", ["h", "zero", "high"], ["m"])],
    "a mask before a softmax": [
        helper.make_node("Add", ["h", "mask"], ["p"]),
        helper.make_node("Softmax", ["p"], ["m"], axis=-1),
    ],
    "the other side of a choice": [
        helper.make_node("Less", ["h", "zero"], ["below"]),
        helper.make_node("Where", ["below", "low", "h"], ["p"]),
        helper.make_node("Relu", ["p"], ["m"]),
    ],
    "a mask that is computed": [
        helper.make_node("ConstantOfShape", ["shape"], ["full"], value=numpy_helper.from_array(np.array([-INF]))),
        helper.make_node("Trilu", ["full", "one"], ["triangle"], upper=1),
        helper.make_node("Add", ["h", "triangle"], ["p"]),
        helper.make_node("Softmax", ["p"], ["m"], axis=-1),
    ],
    "the logarithm of a mask": [
        helper.make_node("Log", ["ones"], ["l"]),
        helper.make_node("Add", ["h", "l"], ["p"]),
        helper.make_node("Softmax", ["p"], ["m"], axis=-1),
    ],
    "the start of a maximum": [helper.make_node("Max", ["h", "low"], ["m"])],
}


def model(
    inside: list[onnx.NodeProto], weights: dict[str, np.ndarray] = WEIGHTS, lifted: bool = True
) -> onnx.ModelProto:
    """A small classifier with ``inside`` between its convolutions; constants as weights or as nodes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["h"]),
        *inside,
        helper.make_node("Conv", ["m", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["logits"]),
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items() if name in used]
    if not lifted:
        nodes = [*(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors), *nodes]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors if lifted else [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    pixels = RANDOM.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=pixels, labels=np.arange(48) % 4)
    (folder / "r.toml").write_text(
        'classes = ["a", "b", "c", "d"]\n[preprocess]\nsize = [16, 16]\nmode = "RGB"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n[calibration]\nsamples = 32\n"
    )
    return {"data": folder / "data.npz", "recipe": folder / "r.toml"}


@pytest.mark.parametrize("lifted", [True, False], ids=["weights", "nodes"])
@pytest.mark.parametrize("kind", ORDINARY)
def test_allowed_in_every_command(
    kind: str, lifted: bool, images: dict[str, Path], tmp_path: Path, rir: Runner
) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(model(ORDINARY[kind], lifted=lifted), path)
    given = ("--data", images["data"], "--recipe", images["recipe"])
    for command in (
        ("inspect", path),
        ("fold", path, "-o", tmp_path / "folded.onnx"),
        ("inspect", tmp_path / "folded.onnx"),
        ("quantize", path, "-o", tmp_path / "q.onnx", "--qdq", "cpu", "--method", "minmax", *given),
        ("build-engine", path, "-o", tmp_path / "half", "--fp16", "--backend", "onnxruntime", *given),
        ("verify", path, tmp_path / "half", *given),
    ):
        ran = rir(*command)
        assert ran.code == 0, (command[0], ran.err)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    x = RANDOM.standard_normal((4, 3, 16, 16)).astype("f4")
    before, after = (
        onnxruntime.InferenceSession(tmp_path / name, options).run(None, {"x": x})[0] for name in ("in.onnx", "q.onnx")
    )
    assert np.isfinite(after).all()
    noise, signal = np.square(after - before).sum(), np.square(before).sum()
    assert 10 * np.log10(signal / noise) > 20


PLACES = {"convolution": "w", "second convolution": "v", "product": "head"}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lifted", [True, False], ids=["weights", "nodes"])
def test_refused_in_a_weight(place: str, value: float, lifted: bool, tmp_path: Path) -> None:
    name = PLACES[place]
    broken = WEIGHTS[name].copy()
    broken.reshape(-1)[5] = value
    proto = model(ORDINARY["the bounds of a clip"], {**WEIGHTS, name: broken}, lifted)
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(InputError, match=f"the weight '{name}' holds NaN or infinite numbers"):
        load_onnx(tmp_path / "in.onnx")


def test_refused_in_a_weight_that_reaches_its_layer_through_other_nodes(tmp_path: Path) -> None:
    broken = WEIGHTS["v"].copy()
    broken[1, 2, 0, 0] = np.inf
    proto = model(
        [
            helper.make_node("Transpose", ["moved"], ["v"], perm=[0, 1, 3, 2]),
            helper.make_node("Identity", ["h"], ["m"]),
        ],
        {name: array for name, array in WEIGHTS.items() if name != "v"} | {"moved": broken},
    )
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(InputError, match="the weight 'moved'"):
        load_onnx(tmp_path / "in.onnx")


def test_nan_is_refused_anywhere(tmp_path: Path) -> None:
    proto = model(ORDINARY["the bounds of a clip"], {**WEIGHTS, "high": np.float32(np.nan)})
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(InputError, match="the weight 'high' holds NaN"):
        load_onnx(tmp_path / "in.onnx")
