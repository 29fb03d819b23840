"""A tiny writer for ONNX graphs in tests, and an evaluator that is independent of the fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from rir_deploy.fold import fold

Array = NDArray[np.floating]


class Writer:
    """Writes nodes with random weights; every method returns the name of its output."""

    def __init__(self, seed: int = 0, opset: int = 18, dtype: type = np.float64) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset, self.dtype = opset, np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.channels: dict[str, int] = {}

    @property
    def tensor_type(self) -> int:
        return helper.np_dtype_to_tensor_dtype(self.dtype)

    def input(self, channels: int, size: Sequence[int | str] = (8, 8), name: str = "x") -> str:
        self.inputs.append(helper.make_tensor_value_info(name, self.tensor_type, ["batch", channels, *size]))
        self.channels[name] = channels
        return name

    def constant(self, array: Array, name: str | None = None) -> str:
        name = name or f"w{len(self.weights)}"
        cast = array.astype(self.dtype) if array.dtype.kind == "f" else array
        self.weights.append(numpy_helper.from_array(cast, name))
        return name

    def op(self, op_type: str, inputs: Sequence[str], channels: int, outputs: int = 1, **attributes: object) -> str:
        names = [f"{op_type.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        self.channels.update(dict.fromkeys(names, channels))
        return names[0]

    def conv(self, x: str, rows: int, k: int | tuple[int, int] = 3, bias: bool = False, **attributes: object) -> str:
        taps = (k, k) if isinstance(k, int) else k
        group = int(attributes.get("group", 1))  # type: ignore[call-overload]
        shape = (rows, self.channels[x] // group, *taps)
        attributes.setdefault("pads", [(t - 1) // 2 for t in taps] * 2) if "auto_pad" not in attributes else None
        inputs = [x, self.constant(self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))]
        if bias:
            inputs.append(self.constant(self.rng.standard_normal(rows)))
        return self.op("Conv", inputs, rows, kernel_shape=list(taps), **attributes)

    def bn(self, x: str) -> str:
        c = self.channels[x]
        gamma, beta = self.rng.uniform(0.5, 1.5, c), self.rng.standard_normal(c)
        mean, var = self.rng.standard_normal(c), self.rng.uniform(0.5, 2.0, c)
        return self.op("BatchNormalization", [x, *map(self.constant, (gamma, beta, mean, var))], c, epsilon=1e-3)

    def relu(self, x: str) -> str:
        return self.op("Relu", [x], self.channels[x])

    def add(self, *xs: str) -> str:
        result = xs[0]
        for x in xs[1:]:
            result = self.op("Add", [result, x], self.channels[result])
        return result

    def scale(self, x: str, factor: float) -> str:
        return self.op("Mul", [x, self.constant(np.array(factor))], self.channels[x])

    def concat(self, *xs: str) -> str:
        return self.op("Concat", list(xs), sum(self.channels[x] for x in xs), axis=1)

    def slice(self, x: str, start: int, stop: int) -> str:
        bounds = [self.constant(np.array([v], dtype=np.int64)) for v in (start, stop, 1)]
        return self.op("Slice", [x, *bounds], stop - start)

    def subsample(self, x: str, step: int) -> str:
        lists = ([0, 0], [np.iinfo(np.int64).max] * 2, [2, 3], [step, step])
        return self.op("Slice", [x, *(self.constant(np.array(v, dtype=np.int64)) for v in lists)], self.channels[x])

    def pad_channels(self, x: str, rows: int) -> str:
        pads = np.array([0, 0, 0, 0, 0, rows - self.channels[x], 0, 0], dtype=np.int64)
        return self.op("Pad", [x, self.constant(pads)], rows)

    def model(self, *outputs: str, rank: int | None = None) -> ir.Model:
        shape = None if rank is None else [None] * rank
        infos = [helper.make_tensor_value_info(name, self.tensor_type, shape) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", self.inputs, infos, self.weights)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


class Pad(OpRun):  # type: ignore[misc]
    """onnx's own cannot crop: it refuses negative amounts."""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, mode: str = ""
    ) -> tuple[Array]:
        amounts = np.zeros((x.ndim, 2), dtype=np.int64)
        amounts[np.arange(x.ndim) if axes is None else axes] = pads.reshape(2, -1).T
        cropped = x[tuple(slice(-min(a, 0), n + min(b, 0)) for (a, b), n in zip(amounts, x.shape, strict=True))]
        options = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(cropped, np.maximum(amounts, 0), mode=mode, **options),)  # type: ignore[call-overload]


def evaluate(model: ir.Model, seed: int = 1, batch: int = 2, size: int = 8) -> list[Array]:
    """Outputs on a random input, by onnx's reference evaluator."""
    proto = ir.to_proto(model)
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[np.generic]] = {}
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in (v for v in proto.graph.input if v.name not in weights):
        tensor = value.type.tensor_type
        fallback = [batch, 1, size, size]
        shape = [d.dim_value or f for d, f in zip(tensor.shape.dim, fallback, strict=False)]
        feed[value.name] = rng.standard_normal(shape).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return evaluate_on(proto, feed)


def evaluate_on(proto: onnx.ModelProto, feed: dict[str, NDArray[np.generic]]) -> list[Array]:
    """Outputs by onnx's reference evaluator."""
    return list(ReferenceEvaluator(proto, new_ops=[Pad]).run(None, feed))


def relative_error(model: ir.Model, other: ir.Model, **options: int) -> float:
    """max |a - b| / max |a| over all outputs.

    What is less than a millionth of the largest output is taken for what rounding leaves of terms that cancel: it is
    held against that millionth.
    """
    pairs = list(zip(evaluate(model, **options), evaluate(other, **options), strict=True))
    least = 1e-6 * max(float(np.abs(a).max()) for a, _ in pairs)
    worst = 0.0
    for a, b in pairs:
        assert a.shape == b.shape
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(a).max(), least, 1e-30)))
    return worst


def check(model: ir.Model, **options: int) -> ir.Model:
    """Fold a graph, hold it against the unfolded one, and return it."""
    result = fold(model)
    assert relative_error(model, result.model, **options) < 1e-9
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    return result.model


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


DOUBLE = TensorProto.DOUBLE
