"""Two graphs compared on random inputs: what is the same passes, and each kind of difference is found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from rir_deploy.errors import GateError
from rir_deploy.fold import FoldOptions, fold
from rir_deploy.graph.equivalence import DifferenceError, Equivalence, compare_graphs, require_equal
from rir_deploy.graph.evaluate import Graph, NotRunError, open_evaluator
from tests.conftest import Runner
from tests.fold.graphs import Writer

Shape = Sequence[int | str | None]
IMAGE: Shape = ("N", 3, "H", "W")


def graph(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: Shape = IMAGE,
    dtype: int = TensorProto.FLOAT,
    more_inputs: dict[str, Shape] | None = None,
    result: int | None = None,
    opset: int = 18,
) -> Graph:
    """``nodes`` from the input ``x``, and from ``more_inputs``, to the output ``y``."""
    inputs = {"x": shape, **(more_inputs or {})}
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info("y", dtype if result is None else result, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return Graph(ir.from_proto(helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)))


def weights(seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(seed).standard_normal((4, 3, 3, 3)).astype(dtype)}


def conv(target: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], [target], **attributes)


RELU = [conv("c"), helper.make_node("Relu", ["c"], ["y"])]
CONV = graph(RELU, weights())


def scaled(factor: float) -> dict[str, np.ndarray]:
    return {"w": (weights()["w"].astype(np.float64) * factor).astype(np.float32)}


def test_a_graph_equals_itself() -> None:
    done = compare_graphs(CONV, CONV)
    assert (done.difference, done.limit, done.skipped) == (0.0, 1e-4, "")
    assert done.runtime.startswith("ONNX Runtime")


def test_dynamic_sizes_are_tried_at_two_values_one_of_them_odd() -> None:
    first, second = (dict(sizes)["x"] for sizes in compare_graphs(CONV, CONV).inputs)
    assert all(one != other for one, other in zip(first[2:], second[2:], strict=True))
    assert first[0] != second[0]
    assert first[1] == second[1] == 3
    assert {size % 2 for size in (*first[2:], *second[2:])} == {0, 1}
    assert first[2] != first[3], "a square would hide height and width exchanged"


@pytest.mark.parametrize(("shape", "tried"), [((2, 3, 7, 9), (2, 3, 7, 9)), (("N", 3, 7, 9), (2, 3, 7, 9))])
def test_fixed_sizes_are_kept(shape: Shape, tried: tuple[int, ...]) -> None:
    fixed = graph([conv()], weights(), shape)
    assert dict(compare_graphs(fixed, fixed).inputs[0])["x"] == tried


def test_sizes_that_the_graph_does_not_take_are_left_for_others() -> None:
    """A fully connected layer behind the flattened map fixes the size, without a word in the input's shape."""
    head = np.ones((4 * 30 * 30, 2), np.float32)
    nodes = [conv("c"), helper.make_node("Flatten", ["c"], ["f"]), helper.make_node("MatMul", ["f", "head"], ["y"])]
    sized = graph(nodes, {**weights(), "head": head})
    done = compare_graphs(sized, sized)
    assert not done.skipped
    assert {dict(sizes)["x"][2:] for sizes in done.inputs} == {(32, 32)}


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("inside", [True, False])
def test_the_limit_follows_the_type(dtype: str, inside: bool) -> None:
    limit = {"float32": 1e-4, "float16": 2e-2, "float64": 1e-10}[dtype]
    tensor = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    factor = 1 + limit * (0.5 if inside else 2)
    original = graph([conv()], weights(dtype=np.dtype(dtype).type), dtype=tensor)
    other = graph([conv()], {"w": (weights()["w"].astype(np.float64) * factor).astype(dtype)}, dtype=tensor)
    if dtype == "float64":  # from the same numbers, not from those rounded to FP32
        other = graph([conv()], {"w": weights(dtype=np.float64)["w"] * factor}, dtype=tensor)
    if inside:
        assert 0 < compare_graphs(original, other).difference < limit  # type: ignore[operator]
    else:
        with pytest.raises(DifferenceError, match=r"its output 'y' differs by .* of its largest value"):
            compare_graphs(original, other)


def one_weight_changed() -> Graph:
    changed = weights()
    changed["w"][2, 1, 0, 2] += 0.05
    return graph(RELU, changed)


def nan_weight() -> Graph:
    changed = weights()
    changed["w"][0, 0, 0, 0] = np.nan
    return graph(RELU, changed)


DIFFERENCES: dict[str, tuple[Callable[[], Graph], str]] = {
    "a weight": (one_weight_changed, "differs by"),
    "every weight a little": (
        lambda: graph([conv("c"), helper.make_node("Relu", ["c"], ["y"])], scaled(1.001)),
        "diff",
    ),
    "no relu": (lambda: graph([conv()], weights()), "differs by"),
    "another padding": (lambda: graph([conv(pads=[1, 1, 1, 1])], weights()), "has the shape"),
    "a stride that a size of its own hides": (lambda: graph([conv(strides=[2, 2])], weights()), "has the shape"),
    "NaN": (nan_weight, "NaN or infinities in other places"),
    "another type": (
        lambda: graph([conv("c"), helper.make_node("Cast", ["c"], ["y"], to=11)], weights(), result=11),
        "has the type float64, not float32",
    ),
    "another input": (
        lambda: graph([helper.make_node("Conv", ["z", "w"], ["y"])], weights(), more_inputs={"z": IMAGE}),
        "its inputs are x, z, not x",
    ),
    "does not load": (lambda: graph([conv(), helper.make_node("Nonsense", ["x"], ["n"])], weights()), "no longer"),
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_differences_are_found(kind: str) -> None:
    make, message = DIFFERENCES[kind]
    with pytest.raises(DifferenceError, match=message):
        compare_graphs(CONV, make())


def test_a_size_that_only_one_batch_shows_is_tried() -> None:
    """A graph that takes a batch of 2 for granted equals the original at a batch of 2."""
    nodes = [conv("c"), helper.make_node("Reshape", ["c", "s"], ["y"])]
    free = graph(nodes, {**weights(), "s": np.array([0, 4, -1])})
    fixed = graph(nodes, {**weights(), "s": np.array([2, 4, -1])})
    with pytest.raises(DifferenceError):
        compare_graphs(free, fixed)


@pytest.mark.parametrize("names", [("N", "M"), (None, None), ("N", 1)])
def test_sums_that_broadcast_a_size_are_tried_with_it_at_1(names: tuple[str | int | None, str | int | None]) -> None:
    """A concatenation needs equal sizes where a sum does not: the original's own inputs show that."""
    two: dict[str, Shape] = {"z": (names[1], 2, 8, 8)}
    ones = {"v": np.ones((4, 2, 1, 1), np.float32), "u": np.ones((4, 4, 1, 1), np.float32)}
    apart = graph(
        [
            helper.make_node("Conv", ["x", "v"], ["a"]),
            helper.make_node("Conv", ["z", "v"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        ones,
        (names[0], 2, 8, 8),
        more_inputs=two,
    )
    joined = graph(
        [
            helper.make_node("Concat", ["x", "z"], ["j"], axis=1),
            helper.make_node("Conv", ["j", "u"], ["y"]),
        ],
        ones,
        (names[0], 2, 8, 8),
        more_inputs=two,
    )
    with pytest.raises(DifferenceError, match="no longer runs for x"):
        compare_graphs(apart, joined)


def test_an_overflow_of_the_original_is_met_on_smaller_inputs() -> None:
    """Where the original gives infinity for unit inputs, the graphs are compared where it is finite."""
    large = {"w": np.full((4, 3, 3, 3), 3e4, np.float16)}
    original = graph([conv()], large, dtype=TensorProto.FLOAT16)
    changed = {"w": large["w"].copy()}
    changed["w"][1] = 2e4
    assert compare_graphs(original, original).difference == 0
    with pytest.raises(DifferenceError, match="differs by"):
        compare_graphs(original, graph([conv()], changed, dtype=TensorProto.FLOAT16))


STEPS = {
    "argmax": [helper.make_node("ArgMax", ["c"], ["y"], axis=3)],
    "rounding": [helper.make_node("Round", ["c"], ["y"])],
    "comparison": [helper.make_node("Greater", ["c", "zero"], ["b"]), helper.make_node("Cast", ["b"], ["y"], to=1)],
    "quantised": [
        helper.make_node("QuantizeLinear", ["c", "scale", "point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["y"]),
    ],
}


def stepped(kind: str, noise: float) -> Graph:
    moved = weights()["w"].astype(np.float64)
    moved *= 1 + noise * np.random.default_rng(1).standard_normal(moved.shape)
    extra = {"zero": np.float32(0), "scale": np.float32(0.02), "point": np.int8(0)}
    result = TensorProto.INT64 if kind == "argmax" else TensorProto.FLOAT
    every = {"w": moved.astype(np.float32), **extra}
    return graph([conv("c"), *STEPS[kind]], every, ("N", 3, 96, 96), result=result)


@pytest.mark.parametrize("kind", STEPS)
def test_steps_magnify_rounding_and_are_excused_for_no_more(kind: str) -> None:
    """Weights moved by a rounding error flip some results: no difference. Moved by a thousandth, they are one."""
    assert compare_graphs(stepped(kind, 0), stepped(kind, 3e-7)).difference is not None
    with pytest.raises(DifferenceError):
        compare_graphs(stepped(kind, 0), stepped(kind, 1e-2))


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING])
def test_inputs_that_are_no_floats(dtype: int) -> None:
    same = graph([helper.make_node("Identity", ["x"], ["y"])], {}, ("N", 5), dtype)
    done = compare_graphs(same, same)
    assert (done.difference, done.skipped) == (0.0, "")


def test_random_answers_are_not_compared() -> None:
    one, other = (graph([helper.make_node("RandomNormalLike", ["x"], ["y"], seed=seed)], {}) for seed in (1.0, 2.0))
    assert compare_graphs(one, other).skipped == "its answers are random"
    assert compare_graphs(one, one).difference == 0  # a session begins with the same numbers each time


def test_an_operator_that_nothing_runs_is_not_checked() -> None:
    foreign = graph([helper.make_node("Mystery", ["x"], ["y"], domain="org.example")], {})
    foreign.model.graph.opset_imports["org.example"] = 1
    done = compare_graphs(foreign, foreign)
    assert "Mystery" in done.skipped
    assert (done.runtime, done.difference, done.inputs) == ("", None, ())


def test_an_input_that_is_no_tensor_is_not_checked() -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    nodes = [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)]
    proto = helper.make_graph(nodes, "g", [sequence], [helper.make_tensor_value_info("y", 1, None)])
    listed = Graph(ir.from_proto(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)))
    assert compare_graphs(listed, listed).skipped == "its input 'x' is no tensor"


def test_without_onnx_runtime_the_reference_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = compare_graphs(CONV, CONV)
    assert done.runtime.startswith("onnx's reference")
    with pytest.raises(DifferenceError):
        compare_graphs(CONV, one_weight_changed())
    with pytest.raises(NotRunError, match="not installed"), open_evaluator(CONV):
        pass


def test_types_that_onnx_runtime_lacks_are_run_in_the_reference() -> None:
    """It has no convolution of float64."""
    double = graph([conv()], weights(dtype=np.float64), dtype=TensorProto.DOUBLE)
    assert compare_graphs(double, double).runtime.startswith("onnx's reference")


def test_a_gate_names_action_and_way_out() -> None:
    assert require_equal(CONV, CONV, "folding", "leave it").skipped == ""
    with pytest.raises(GateError, match=r"^folding would change the model: its output .*; leave it, and report it$"):
        require_equal(CONV, one_weight_changed(), "folding", "leave it")


def _block() -> ir.Model:
    w = Writer(dtype=np.float32)
    x = w.input(3)
    r, t = w.relu(w.bn(w.conv(x, 4))), w.relu(w.bn(w.conv(x, 4)))
    return w.model(w.relu(w.bn(w.add(w.conv(r, 4), w.conv(t, 4), r))))


def _broken(model: ir.Model) -> ir.Model:
    """The first weight of the folded graph, wrong by a tenth."""
    value = next(iter(model.graph.initializers.values()))
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.1), name=value.name)
    return model


@pytest.fixture
def faulty_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold whose result is wrong in one weight."""
    from rir_deploy.fold import fold as module_function  # the function hides the module of its name

    module = sys.modules[module_function.__module__]
    right = module._fold_settled

    def wrong(*arguments: object) -> tuple[ir.Model, object, object, object]:
        model, *rest = right(*arguments)
        return (_broken(model), *rest)

    monkeypatch.setattr(module, "_fold_settled", wrong)


def test_the_fold_checks_itself(faulty_fold: None) -> None:
    with pytest.raises(GateError, match="folding would change the model"):
        fold(_block())
    assert fold(_block(), FoldOptions(check=False)).check is None


def test_a_wrong_fold_writes_nothing(faulty_fold: None, rir: Runner, tmp_path: Path) -> None:

    ir.save(_block(), tmp_path / "in.onnx")
    ran = rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx")
    assert ran.code == 3
    assert "folding would change the model" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]
    assert rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--no-check").code == 0


def test_the_check_is_reported(rir: Runner, tmp_path: Path) -> None:

    ir.save(_block(), tmp_path / "in.onnx")
    check = rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--json").json["check"]
    assert check["runtime"].startswith("ONNX Runtime")
    assert 0 <= check["difference"] < check["limit"] == 1e-4
    assert len(check["inputs"]) == 2
    ran = rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--force")
    assert "checked against the original on random inputs in ONNX Runtime" in ran.out
    assert rir("fold", tmp_path / "in.onnx", "-o", tmp_path / "two.onnx", "--no-check", "--json").json["check"] is None
    assert Equivalence(skipped="x").to_dict()["skipped"] == "x"


def frames(step: onnx.NodeProto) -> Graph:
    """A Fourier transform of frames whose length ``s`` the node ``step`` gives."""
    nodes = [step, helper.make_node("STFT", ["signal", "one", "", "s"], ["y"])]
    given = {"one": np.array(1), "signal": np.ones((1, 16, 1), "f4")}
    return graph(nodes, given, (), TensorProto.INT64, result=TensorProto.FLOAT)


ZERO = helper.make_node("Sub", ["x", "x"], ["s"])
ONE = helper.make_node("Identity", ["one"], ["s"])


def test_a_process_that_ends_is_survived() -> None:
    """ONNX Runtime divides by a length of zero, which ends the process that it runs in."""
    assert "ends the process" in compare_graphs(frames(ZERO), frames(ZERO)).skipped
    assert compare_graphs(frames(ONE), frames(ONE)).difference == 0


def test_a_result_that_alone_ends_the_process_differs() -> None:
    with pytest.raises(DifferenceError, match="running it ends the process"):
        compare_graphs(frames(ONE), frames(ZERO))


def test_what_a_process_of_its_own_finds_is_told() -> None:
    twice = helper.make_node("Add", ["one", "one"], ["s"])
    with pytest.raises(DifferenceError, match="has the shape"):
        compare_graphs(frames(ONE), frames(twice))


def camera(kind: str, noise: float) -> Graph:
    """An image of bytes, scaled and convolved; then a step or a pole."""
    moved = weights()["w"].astype(np.float64)
    moved *= 1 + noise * np.random.default_rng(1).standard_normal(moved.shape)
    scaled = [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("Div", ["f", "full"], ["s"])]
    nodes = [*scaled, helper.make_node("Conv", ["s", "w"], ["c"]), *STEPS[kind]]
    extra = {"full": np.float32(255), "zero": np.float32(0), "scale": np.float32(0.02), "point": np.int8(0)}
    result = TensorProto.INT64 if kind in ("argmax", "nonzero") else TensorProto.FLOAT
    every = {"w": moved.astype(np.float32), **extra}
    return graph(nodes, every, ("N", 3, 96, 96), TensorProto.UINT8, result=result)


STEPS["logarithm"] = [helper.make_node("Abs", ["c"], ["a"]), helper.make_node("Log", ["a"], ["y"])]
STEPS["nonzero"] = [helper.make_node("Greater", ["c", "zero"], ["b"]), helper.make_node("NonZero", ["b"], ["y"])]


@pytest.mark.parametrize("kind", ["rounding", "quantised", "argmax", "logarithm", "nonzero"])
@pytest.mark.parametrize("make", [camera, stepped])
def test_rounding_is_excused_whatever_the_inputs_are(make: Callable[[str, float], Graph], kind: str) -> None:
    if (make, kind) == (stepped, "nonzero"):
        return  # its output is one of integers, which `stepped` declares for an argmax alone
    assert not compare_graphs(make(kind, 0), make(kind, 1e-7)).skipped


def test_the_limit_is_that_of_an_output_by_itself() -> None:
    """An output in FP32 is held to FP32's limit, whatever another output of the graph is rounded to."""

    def both(factor: float) -> Graph:
        nodes = [
            conv(),
            helper.make_node("Cast", ["y"], ["half"], to=10),
            helper.make_node("Cast", ["half"], ["z"], to=1),
        ]
        one = graph(nodes, scaled(factor))
        one.model.graph.outputs.append(one.model.graph[2].outputs[0])
        return one

    with pytest.raises(DifferenceError, match="its output 'y' differs"):
        compare_graphs(both(1), both(1.001))
    assert compare_graphs(both(1), both(1.00001)).limit == 2e-2


def test_a_large_input_of_a_fixed_size_is_tried() -> None:
    large = graph([conv()], weights(), ("N", 3, 640, 640))
    assert dict(compare_graphs(large, large).inputs[0])["x"] == (2, 3, 640, 640)
