"""Every op that the fold evaluates on constants, against ONNX Runtime; what it must leave to the runtime stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.fold import evaluate, fold
from rir_deploy.fold.evaluate import evaluate_constant
from tests.fold.graphs import Array, ops

ort = pytest.importorskip("onnxruntime")

Case = tuple[str, list[NDArray[np.generic] | None], dict[str, object], tuple[int, ...]]
ALL, RNG = (11, 13, 18, 20), np.random.default_rng(0)
P, Q = RNG.standard_normal((2, 3, 4)), RNG.uniform(0.5, 2.0, (2, 3, 4))
INTS, FLAGS = RNG.integers(-7, 8, (2, 3, 4)), RNG.random((2, 3, 4)) > 0.5
NONZERO = np.where(INTS == 0, 3, INTS)


def i64(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def both(op: str, a: Array, b: Array | None = None, opsets: tuple[int, ...] = ALL) -> list[Case]:
    """In FP32 and FP64; onnx's arithmetic is on floats of all sizes."""
    arrays = [array for array in (a, b) if array is not None]
    return [(op, [array.astype(kind) for array in arrays], {}, opsets) for kind in (np.float32, np.float64)]


F = P.astype(np.float32)
CASES: list[Case] = [
    *(case for op in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Neg", "Relu", "Sigmoid", "Sign") for case in both(op, P)),
    *(case for op in ("Round", "Tanh", "Identity", "Flatten", "Transpose") for case in both(op, P)),
    *(case for op in ("Log", "Reciprocal", "Sqrt") for case in both(op, Q)),
    *(case for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean") for case in both(op, P, Q[:1, :, :1])),
    *(case for op in ("Greater", "Less", "Equal") for case in both(op, P, Q)),
    *(case for op in ("GreaterOrEqual", "LessOrEqual") for case in both(op, P, Q, (12, 13, 18))),
    *((op, [INTS, NONZERO[:, :1]], {}, ALL) for op in ("Add", "Sub", "Mul", "Div", "Mod", "Equal", "Less")),
    *((op, [INTS.astype(np.int32), NONZERO.astype(np.int32)], {}, ALL) for op in ("Div", "Mod")),
    *((op, [INTS], {}, (13, 18)) for op in ("Abs", "Neg", "Sign")),
    *((op, [FLAGS, ~FLAGS[:, :1]], {}, ALL) for op in ("And", "Or", "Xor")),
    ("Not", [FLAGS], {}, ALL),
    ("Mod", [F, np.float32([0.7])], {"fmod": 1}, ALL),
    ("Mod", [INTS, NONZERO], {"fmod": 1}, ALL),
    ("Pow", [Q.astype(np.float32), F], {}, (13, 18)),
    ("Pow", [INTS, i64(2)], {}, (13, 18)),
    ("Clip", [F, np.float32(-0.5), np.float32(0.5)], {}, ALL),
    ("Clip", [F, None, np.float32(0.5)], {}, ALL),
    ("Clip", [F, np.float32(0.5), np.float32(-0.5)], {}, (13, 18)),
    *(("Cast", [array], {"to": to}, ALL) for array in (F, P, INTS, FLAGS) for to in (1, 11, 7, 6, 9)),
    ("Cast", [F], {"to": TensorProto.FLOAT16}, ALL),
    ("Cast", [INTS], {"to": TensorProto.UINT8}, ALL),
    ("CumSum", [F, i64(1).reshape(())], {"exclusive": 1, "reverse": 1}, ALL),
    ("Range", [i64(2).reshape(()), i64(11).reshape(()), i64(3).reshape(())], {}, ALL),
    ("Range", [i64(7).reshape(()), i64(-2).reshape(()), i64(-2).reshape(())], {}, ALL),
    *(("Concat", [F, F], {"axis": axis}, ALL) for axis in (0, -1)),
    ("ConstantOfShape", [i64(2, 3)], {}, ALL),
    ("ConstantOfShape", [i64(2)], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [5])}, ALL),
    ("Expand", [F[:, :1], i64(2, 3, 4)], {}, ALL),
    ("EyeLike", [F[0]], {"k": 1}, ALL),
    ("Flatten", [F], {"axis": -1}, ALL),
    *(("Gather", [F, i64(0, -1)], {"axis": axis}, ALL) for axis in (0, 2, -1)),
    ("GatherElements", [F, i64(*[0, -1] * 12).reshape(2, 3, 4)], {"axis": -1}, ALL),
    ("GatherND", [F, i64(0, 1, 1, -1).reshape(2, 2)], {}, ALL),
    ("NonZero", [FLAGS], {}, ALL),
    ("OneHot", [i64(1, -1), i64(4).reshape(()), np.float32([0, 1])], {"axis": 0}, ALL),
    ("Pad", [F, i64(0, 1, 2, 1, 0, 1), np.float32(0.5)], {"mode": "constant"}, ALL),
    *(("Pad", [F, i64(0, 1, 2, 1, 0, 1)], {"mode": mode}, ALL) for mode in ("reflect", "edge")),
    ("Reshape", [F, i64(0, -1, 2)], {}, ALL),
    ("Reshape", [F, i64(4, 6)], {"allowzero": 1}, (14, 18)),
    ("ScatterElements", [F, i64(1, 0).reshape(2, 1, 1), F[:, :1, :1]], {"axis": -1}, ALL),
    ("ScatterND", [F, i64(1, 0).reshape(1, 2), F[0, :1]], {}, ALL),
    ("Shape", [F], {}, ALL),
    ("Shape", [F], {"start": 1, "end": -1}, (15, 18)),
    ("Size", [F], {}, ALL),
    ("Slice", [F, i64(-1), i64(-100), i64(-1), i64(-2)], {}, ALL),
    ("Slice", [F, i64(0, 1), i64(9, 2)], {}, ALL),
    ("Squeeze", [F[:, :1]], {"axes": [1]}, (11,)),
    ("Squeeze", [F[:, :1], i64(-2)], {}, (13, 18)),
    ("Squeeze", [F[:, :1]], {}, ALL),
    ("Unsqueeze", [F], {"axes": [0, 2]}, (11,)),
    ("Unsqueeze", [F, i64(0, -1)], {}, (13, 18)),
    ("Tile", [F, i64(1, 2, 3)], {}, ALL),
    ("Transpose", [F], {"perm": [2, 0, 1]}, ALL),
    *(("Trilu", [F], {"upper": upper}, (14, 18)) for upper in (0, 1)),
    ("Trilu", [F, i64(-1).reshape(())], {}, (14, 18)),
    ("Where", [FLAGS, F, F[:, :1] * 2], {}, ALL),
    ("MatMul", [F, F[0].T], {}, ALL),
    ("Gemm", [F[0], F[1], F[0, :, :1]], {"transB": 1, "alpha": 0.5, "beta": 2.0}, ALL),
    ("Gemm", [F[0], F[1].T.copy()], {}, ALL),
    *((op, [F], {"axes": [1, -1], "keepdims": 0}, (11,)) for op in ("ReduceSum", "ReduceMean", "ReduceMax")),
    *((op, [F], {"axes": [0]}, (11, 13)) for op in ("ReduceMin", "ReduceProd")),
    *((op, [F, i64(1)], {"keepdims": 0}, (18, 20)) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")),
    ("ReduceSum", [F, i64(-1, 0)], {}, (13, 18)),
    ("ReduceSum", [F], {"noop_with_empty_axes": 1}, (13, 18)),
    *((op, [F], {}, ALL) for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")),
    *((op, [F], {"axis": axis}, (13, 18)) for op in ("Softmax", "LogSoftmax") for axis in (0, 1, -1)),
]


def _node(op: str, arrays: list[NDArray[np.generic] | None], attributes: Mapping[str, object]) -> ir.Node:
    names = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    proto = helper.make_node(op, names, ["y"], **attributes)
    values = {name: ir.Value(name=name) for name in names if name}
    read = [values.get(name) for name in names]
    kinds = [ir.from_proto(attribute) for attribute in proto.attribute]
    return ir.Node("", op, read, kinds, num_outputs=1)


def _in_runtime(
    op: str, arrays: list[NDArray[np.generic] | None], attributes: Mapping[str, object], opset: int
) -> NDArray[np.generic]:
    feed = {f"x{i}": np.asarray(array) for i, array in enumerate(arrays) if array is not None}
    names = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    node = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph([node], "one", inputs, [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    found: NDArray[np.generic] = ort.InferenceSession(proto.SerializeToString(), options).run(None, feed)[0]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[2]))}")
def test_an_evaluated_op_gives_what_the_runtime_gives(case: Case) -> None:
    op, arrays, attributes, opsets = case
    for opset in opsets:
        found = evaluate_constant(_node(op, arrays, attributes), arrays, opset)
        assert found is not None
        try:
            expected = _in_runtime(op, arrays, attributes, opset)
        except ort.capi.onnxruntime_pybind11_state.NotImplemented:
            assert arrays[0] is not None
            assert arrays[0].dtype == np.float64  # the runtime has the op in FP32, which is another case here
            continue
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_op_that_is_evaluated_is_a_case() -> None:
    assert {case[0] for case in CASES} == evaluate._CHECKED
    compared = Counter(op for op, arrays, *_ in CASES if arrays[0] is not None and arrays[0].dtype != np.float64)
    assert compared.keys() == evaluate._CHECKED


IMAGE = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)
LEFT: list[Case] = [
    *((op, [IMAGE], {"axis": 1}, (11, 12)) for op in ("Softmax", "LogSoftmax")),
    ("Hardmax", [IMAGE], {"axis": 1}, (11, 13)),
    ("BatchNormalization", [IMAGE, *[np.ones(4, np.float32)] * 4], {}, (11, 14)),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (11, 18)),
    ("Dropout", [IMAGE, np.float32(0.5), np.array(True)], {}, (13,)),
    *((op, [IMAGE], {}, (15,)) for op in ("Bernoulli", "RandomNormalLike", "RandomUniformLike")),
    ("Resize", [IMAGE, None, np.float32([1, 1, 2, 2])], {"mode": "cubic"}, (13,)),
    ("Cast", [np.float32([300.0])], {"to": TensorProto.UINT8}, (13,)),
    ("Cast", [np.float32([np.nan])], {"to": TensorProto.INT64}, (13,)),
    ("Cast", [i64(1)], {"to": TensorProto.STRING}, (13,)),
    ("Cast", [np.float32([300.0])], {"to": TensorProto.FLOAT8E4M3FN}, (19,)),
    ("Div", [i64(1, 2), i64(1, 0)], {}, (13,)),
    ("Mod", [i64(1, 2), i64(1, 0)], {}, (13,)),
    ("ReduceMax", [np.zeros((2, 0), np.float32)], {}, (13,)),
    ("ReduceMean", [np.ones((2, 8), np.float16)], {}, (13,)),
    ("MatMul", [np.ones((2, 2), np.float16)] * 2, {}, (13,)),
    ("ScatterND", [IMAGE[0, 0, 0], i64(0, 0).reshape(2, 1), IMAGE[0, 0, 0, :2]], {"reduction": "add"}, (16,)),
    ("Equal", [np.array([b"a", b"b"], dtype=object)] * 2, {}, (19,)),
    ("Identity", [np.array([b"a", b"b"], dtype=object)], {}, (19,)),
    ("DequantizeLinear", [np.int8([3]), np.float32(0.1)], {}, (13,)),
    ("NoSuchOp", [IMAGE], {}, (13,)),
]


@pytest.mark.parametrize("case", LEFT, ids=lambda case: case[0])
def test_what_runtimes_may_give_otherwise_is_left_to_them(case: Case) -> None:
    op, arrays, attributes, opsets = case
    for opset in opsets:
        assert evaluate_constant(_node(op, arrays, attributes), arrays, opset) is None


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax", "MaxPool", "BatchNormalization", "Dropout"])
def test_a_scale_computed_from_constants(op: str, opset: int) -> None:
    """In ONNX Runtime, before and after: y = conv(x) * op(constant)."""
    attributes: dict[str, object] = {"axis": 1} if "max" in op and op != "MaxPool" else {}
    attributes |= {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]} if op == "MaxPool" else {}
    inputs = ["p", *(["g"] * 4 if op == "BatchNormalization" else [])]
    nodes = [
        helper.make_node(op, inputs, ["q"], **attributes),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "q"], ["y"]),
    ]
    arrays = {"p": IMAGE, "g": RNG.uniform(0.5, 1, 4), "w": RNG.standard_normal((4, 3, 3, 3))}
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", c, s, s]) for name, c, s in VALUES]
    graph = helper.make_graph(nodes, "scale", [values[0]], [values[1]], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    result = ir.to_proto(fold(ir.from_proto(proto)).model)
    feed = {"x": RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)}
    a, b = (ort.InferenceSession(model.SerializeToString()).run(None, feed)[0] for model in (proto, result))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


VALUES = (("x", 3, 8), ("y", 4, 6))


def test_what_is_not_finite_is_not_stored() -> None:
    """A root of a negative constant: stored, it would be a weight that no tool reads."""
    nodes = [helper.make_node("Sqrt", ["p"], ["q"]), helper.make_node("Mul", ["x", "q"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 2, 2]) for name in "xy"]
    weight = numpy_helper.from_array(np.float32([-1.0]), "p")
    graph = helper.make_graph(nodes, "root", [values[0]], [values[1]], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert ops(fold(ir.from_proto(proto)).model) == {"Sqrt": 1, "Mul": 1}
