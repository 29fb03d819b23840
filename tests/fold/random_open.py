"""Random graphs with what the fold has to leave alone: nested graphs that capture its tensors, values computed from
constants, and batches, heights and widths that depend on the input.

Every graph comes with two inputs to run it on, at two sizes. Half of the graphs are FP32 and of ops that ONNX Runtime
has, so that they can be run there: what the fold computes from constants is not judged by its own evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.fold.graphs import Array, Writer, evaluate_on
from tests.fold.random_graphs import SIZE, Builder

OPSETS = (11, 12, 13, 14, 17, 18, 20)
# The reference computes a BatchNormalization of an older opset as in training.
REFERENCE_OPSETS = (14, 17, 18, 20)
RUNS = 2
LARGE = (11, 9)
# How a batch is written in the graph, and what it is in both runs.
BATCHES: dict[str | int | None, tuple[tuple[int, int], ...]] = {
    "n": ((2, 3),),
    "m": ((1, 3), (2, 1)),
    None: ((1, 3), (2, 1), (2, 3)),
    1: ((1, 1),),
}
TOLERANCES = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}


@dataclass(frozen=True)
class OpenGraph:
    """``feeds`` are the inputs of two runs."""

    model: ir.Model
    feeds: tuple[dict[str, NDArray[np.generic]], ...]
    dtype: np.dtype[np.floating]

    def error(self, other: ir.Model) -> float:
        """The largest difference of both models' outputs, relative to the largest output; infinite where shapes or
        NaN differ. An input that this graph cannot take is passed over."""
        worst = 0.0
        for number, feed in enumerate(self.feeds):
            try:
                expected = self.run(self.model, feed)
            except Exception:  # at the second size, tensors that met may meet no more
                assert number > 0
                continue
            try:
                found = self.run(other, feed)
            except Exception:  # what a runtime refuses is as wrong as a wrong number
                return float("inf")
            worst = max(worst, _difference(expected, found))
        return worst

    def run(self, model: ir.Model, feed: dict[str, NDArray[np.generic]]) -> list[Array]:
        proto = ir.to_proto(model)
        return evaluate_on(proto, feed) if self.dtype == np.float64 else _in_runtime(proto, feed)


def build(seed: int) -> OpenGraph:
    return _OpenBuilder(seed).graph()


def _in_runtime(proto: onnx.ModelProto, feed: dict[str, NDArray[np.generic]]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return list(onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed))


def _difference(expected: list[Array], found: list[Array]) -> float:
    if [a.shape for a in expected] != [b.shape for b in found]:
        return float("inf")
    if any(not np.array_equal(np.isfinite(a), np.isfinite(b)) for a, b in zip(expected, found, strict=True)):
        return float("inf")
    largest = max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in expected), default=0.0)
    errors = [np.abs(a - b)[np.isfinite(a)].max(initial=0.0) for a, b in zip(expected, found, strict=True)]
    return float(max(errors, default=0.0)) / max(largest, 1e-6)


class _OpenBuilder(Builder):
    """``batches`` are the batches of every tensor in both runs."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        dtype = self.rng.choice((np.float64, np.float32))
        self.w = Writer(seed, self.rng.choice(REFERENCE_OPSETS if dtype == np.float64 else OPSETS), dtype)
        self.batches: dict[str, tuple[int, int]] = {}
        self.named = {name: self.rng.choice(BATCHES[name]) for name in ("n", "m")}  # one name is one number
        self.flags: list[str] = []
        self.feeds: tuple[dict[str, NDArray[np.generic]], ...] = ({}, {})
        self.inner = 0
        self.steps += [
            *[self.branch] * 3,
            *[self.loop] * 2,
            *(self.scan, self.computed, self.computed, self.mean_of_batch, self.first_image, self.resized, self.rows),
            *(self.constant_shape, self.constant_shape, self.other_pool, self.prelu, self.dropout),
        ]

    def graph(self) -> OpenGraph:
        self.open_input("x", self.rng.choice((*BATCHES, "n", "n")))
        if self.rng.random() < 0.6:
            self.open_input("y", self.rng.choice(tuple(BATCHES)))
        for _ in range(self.rng.randint(4, 14)):
            self.rng.choice(self.steps)(self.pick())
        if self.rng.random() < 0.3:  # a nested graph that nothing reads
            self.branch(self.pick(), dead=True)
        read = {name for node in self.w.nodes for name in node.input}
        leaves = self.rng.random() < 0.7
        outputs = [name for name in self.sizes if name not in read] if leaves else [self.pick() for _ in range(2)]
        outputs = [name for name in dict.fromkeys(outputs) if name not in self.feeds[0]]
        model = self.w.model(*(outputs or [self.norm("x")]), rank=4)
        return OpenGraph(model, self.feeds, self.w.dtype)

    def open_input(self, name: str, batch: str | int | None) -> None:
        channels = self.w.channels["x"] if self.sizes and self.rng.random() < 0.7 else self.rng.randint(1, 4)
        sizes = self.rng.choice(((SIZE[0], SIZE[1]), ("h", "w"), (None, None), ("h", SIZE[1]), (None, SIZE[1])))
        self.w.inputs.append(helper.make_tensor_value_info(name, self.w.tensor_type, [batch, channels, *sizes]))
        self.w.channels[name], self.sizes[name] = channels, SIZE
        choices = [self.named[batch]] if isinstance(batch, str) else BATCHES[batch]
        self.batches[name] = self.rng.choice(choices)
        for run, feed in enumerate(self.feeds):
            sides = [SIZE[i] if run == 0 or isinstance(sizes[i], int) else LARGE[i] for i in range(2)]
            feed[name] = self.w.rng.standard_normal([self.batches[name][run], channels, *sides]).astype(self.w.dtype)

    def may_meet(self, x: str, other: str, op: str) -> bool:
        return op == "Add" or self.batches[x] == self.batches[other]

    def put(self, name: str, size: tuple[int, int]) -> str:
        if name not in self.batches:
            read = [self.batches[value] for value in self.w.nodes[-1].input if value in self.batches]
            self.batches[name] = (max(batch[0] for batch in read), max(batch[1] for batch in read))
        return super().put(name, size)

    def activation(self, x: str) -> str:
        """Sometimes with bounds and slopes for which zero does not stay zero."""
        op = self.rng.choice(("Relu", "LeakyRelu", "Clip", "ThresholdedRelu", "HardSigmoid", "Elu", "Exp"))
        if op == "Clip":
            low, high = self.rng.choice(((0.5, 2.0), (-2.0, -0.5), (0.0, 1.0), (1.0, -1.0), (-1.0, 1.0)))
            bounds = [self.w.constant(np.array(bound)) for bound in (low, high)]
            return self.put(self.w.op(op, [x, *bounds], self.w.channels[x]), self.sizes[x])
        alpha = {"ThresholdedRelu": (-1.0, 0.5), "HardSigmoid": (0.2, -0.2), "LeakyRelu": (0.1,), "Elu": (1.0,)}
        if op == "Exp":  # bounded, or it would grow out of every type
            x = self.one(x, "Tanh")
        return self.one(x, op, **({"alpha": self.rng.choice(alpha[op])} if op in alpha else {}))

    def split(self, x: str) -> str:
        if self.w.opset >= 13 or self.w.channels[x] < 2:
            return super().split(x)
        cut = self.rng.randint(1, self.w.channels[x] - 1)
        rest = self.w.channels[x] - cut
        first = self.w.op("Split", [x], cut, outputs=2, axis=1, split=[cut, rest])
        self.w.channels[f"{first}_1"] = rest
        self.put(f"{first}_1", self.sizes[x])
        return self.put(first, self.sizes[x])

    def constant_shape(self, x: str) -> str:
        """A sum or product with a constant of any shape that may be broadcast, or that broadcasts x."""
        (height, width), channels = self.sizes[x], self.w.channels[x]
        shapes = [(channels, 1, 1), (1, 1, 1, 1), (1,), (1, channels, 1, width), (width,), (height, 1), (2, 1, 1, 1)]
        shape = self.rng.choice([shape for shape in shapes if shape[0] != 2 or self.batches[x] == (1, 1)])
        op = self.rng.choice(("Add", "Sub", "Mul", "Div"))
        inputs = [x, self.w.constant(self.w.rng.uniform(0.5, 2.0, shape))]
        name = self.w.op(op, inputs if op == "Div" else self.rng.sample(inputs, 2), channels)
        if shape[0] == 2 and len(shape) == 4:
            self.batches[name] = (2, 2)
        return self.put(name, self.sizes[x])

    def other_pool(self, x: str) -> str:
        """Windows that go over the border, by the opset's own rules. Tensors that meet are told by the whole image."""
        op = self.rng.choice(("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"))
        if op.startswith("Global"):
            return self.put(self.w.op(op, [x], self.w.channels[x]), (1, 1))
        if min(self.sizes[x]) < 3:
            return self.norm(x)
        options: dict[str, object] = {"kernel_shape": [3, 3], "strides": [1, 1]}
        if op != "LpPool" and self.rng.random() < 0.5:
            options |= {"strides": [2, 2], "ceil_mode": 1}
        elif self.rng.random() < 0.5:
            options |= {"auto_pad": self.rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))}
        else:
            options |= {"pads": [0, 1, 1, 0]}
        if op == "AveragePool":
            options["count_include_pad"] = self.rng.choice((0, 1))
        pooled = self.w.op(op, [x], self.w.channels[x], **options)
        mean = self.w.op("GlobalAveragePool", [pooled], self.w.channels[x])
        self.batches[mean] = self.batches[x]
        return self.put(mean, (1, 1))

    def prelu(self, x: str) -> str:
        shape = self.rng.choice(((self.w.channels[x], 1, 1), (1,), (1, 1, self.sizes[x][1])))
        slope = self.w.constant(self.w.rng.uniform(0, 1, shape))
        return self.put(self.w.op("PRelu", [x, slope], self.w.channels[x]), self.sizes[x])

    def dropout(self, x: str) -> str:
        return self.one(x, "Dropout")

    def mean_of_batch(self, x: str) -> str:
        return self.reduced(x, 0)

    def rows(self, x: str) -> str:
        """A sum that broadcasts the height."""
        mean = self.reduced(x, 2)
        del self.sizes[mean]
        return self.put(self.w.op("Add", self.rng.sample([x, mean], 2), self.w.channels[x]), self.sizes[x])

    def reduced(self, x: str, axis: int) -> str:
        channels = self.w.channels[x]
        if self.w.opset >= 18:
            name = self.w.op("ReduceMean", [x, self.w.constant(np.array([axis]))], channels, keepdims=1)
        else:
            name = self.w.op("ReduceMean", [x], channels, axes=[axis], keepdims=1)
        self.batches[name] = (1, 1) if axis == 0 else self.batches[x]
        return self.put(name, self.sizes[x] if axis == 0 else (1, self.sizes[x][1]))

    def first_image(self, x: str) -> str:
        bounds = [self.w.constant(np.array([number])) for number in (0, 1, 0)]
        name = self.w.op("Slice", [x, *bounds], self.w.channels[x])
        self.batches[name] = (1, 1)
        return self.put(name, self.sizes[x])

    def resized(self, x: str) -> str:
        """A Reshape to the tensor's own shape, computed from it; where the batch is read off, or left open."""
        channels = self.w.channels[x]
        sides = [self.gathered(x, axis) for axis in (2, 3)]
        batch = self.gathered(x, 0) if self.rng.random() < 0.5 else self.w.constant(np.array([-1]))
        shape = self.w.op("Concat", [batch, self.w.constant(np.array([channels])), *sides], 1, axis=0)
        return self.put(self.w.op("Reshape", [x, shape], channels), self.sizes[x])

    def gathered(self, x: str, axis: int) -> str:
        return self.w.op("Gather", [self.w.op("Shape", [x], 1), self.w.constant(np.array([axis]))], 1, axis=0)

    def computed(self, x: str) -> str:
        """A scale or an offset that the graph computes from a constant [1, C, 2, 2]."""
        channels, w = self.w.channels[x], self.w
        value = w.constant(w.rng.uniform(0.5, 1.5, (1, channels, 2, 2)))
        for _ in range(self.rng.randint(1, 3)):
            value = self.constant_op(value, channels)
        pooled = w.op("MaxPool", [value], channels, kernel_shape=[2, 2])
        if self.rng.random() < 0.5:
            starts = [w.constant(np.array(numbers)) for numbers in ([0, 0], [1, 1], [2, 3])]
            pooled = w.op("Slice", [value, *starts], channels)
        return self.put(w.op(self.rng.choice(("Mul", "Add")), self.rng.sample([x, pooled], 2), channels), self.sizes[x])

    def constant_op(self, value: str, channels: int) -> str:
        ops = ("Relu", "Neg", "Exp", "Dropout")
        if self.w.dtype == np.float32:  # where the reference, which runs the others, is not what runtimes do
            ops += ("Softmax", "Hardmax", "MaxPool", "BatchNormalization")
        op = self.rng.choice(ops)
        options: dict[str, object] = {"axis": self.rng.choice((1, 2, 3))} if op in ("Softmax", "Hardmax") else {}
        inputs = [value]
        if op == "MaxPool":
            options = {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}
        if op == "Exp":
            inputs = [self.w.op("Sigmoid", inputs, channels)]
        if op == "BatchNormalization":
            inputs += [self.w.constant(self.w.rng.uniform(0.5, 1.5, channels)) for _ in range(4)]
        return self.w.op(op, inputs, channels, **options)

    def condition(self) -> str:
        if self.rng.random() < 0.5:
            return self.w.constant(np.array(self.rng.random() < 0.5))
        if not self.flags:
            self.flags.append("flag")
            self.w.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
            for feed in self.feeds:
                feed["flag"] = np.array(self.rng.random() < 0.5)
        return self.flags[0]

    def branch(self, x: str, dead: bool = False) -> str:
        """An If whose graphs capture x, and another tensor of its shape where there is one."""
        name = f"if_{len(self.w.nodes)}"
        graphs = [self.captured_sum(x, depth=0) for _ in range(2)]
        options = dict(zip(("then_branch", "else_branch"), graphs, strict=True))
        self.w.nodes.append(helper.make_node("If", [self.condition()], [name], name=name, **options))
        self.w.channels[name], self.batches[name] = self.w.channels[x], self.batches[x]
        return name if dead else self.put(name, self.sizes[x])

    def captured_sum(self, x: str, depth: int) -> onnx.GraphProto:
        names, size = self.w.channels, self.sizes
        same = [v for v in size if (names[v], size[v], self.batches[v]) == (names[x], size[x], self.batches[x])]
        other, made = self.rng.choice(same), self.fresh()
        nodes = [helper.make_node(self.rng.choice(("Add", "Sub", "Mul")), [x, other], [made])]
        if depth == 0 and self.rng.random() < 0.4:  # captured from two graphs further out
            inner = [self.captured_sum(self.rng.choice(same), depth=1) for _ in range(2)]
            options = dict(zip(("then_branch", "else_branch"), inner, strict=True))
            nodes.append(helper.make_node("If", [self.condition()], [chosen := self.fresh()], **options))
            nodes.append(helper.make_node("Add", [made, chosen], [made := self.fresh()]))
        nodes.append(helper.make_node(self.rng.choice(("Relu", "Neg", "Tanh")), [made], [last := self.fresh()]))
        return helper.make_graph(nodes, last, [], [helper.make_tensor_value_info(last, self.w.tensor_type, [None] * 4)])

    def fresh(self) -> str:
        self.inner += 1
        return f"inner_{self.inner}"

    def loop(self, x: str) -> str:
        """v = relu(v + x) a few times over, from another tensor of x's shape."""
        value, kind, shape = helper.make_tensor_value_info, self.w.tensor_type, [None] * 4
        step, going, before, summed, after, on = (self.fresh() for _ in range(6))
        nodes = [
            helper.make_node("Add", [before, x], [summed]),
            helper.make_node(self.rng.choice(("Relu", "Tanh")), [summed], [after]),
            helper.make_node("Identity", [going], [on]),
        ]
        inputs = [value(step, TensorProto.INT64, []), value(going, TensorProto.BOOL, []), value(before, kind, shape)]
        body = helper.make_graph(nodes, "body", inputs, [value(on, TensorProto.BOOL, []), value(after, kind, shape)])
        trips = [self.w.constant(np.array(self.rng.randint(1, 3))), self.w.constant(np.array(True))]
        return self.put(self.w.op("Loop", [*trips, x], self.w.channels[x], body=body), self.sizes[x])

    def scan(self, x: str) -> str:
        """One image after the other."""
        value, kind = helper.make_tensor_value_info, self.w.tensor_type
        image, scaled, result = (self.fresh() for _ in range(3))
        factor = self.w.constant(self.w.rng.uniform(0.5, 1.5, (self.w.channels[x], 1, 1)))
        nodes = [helper.make_node("Mul", [image, factor], [scaled]), helper.make_node("Relu", [scaled], [result])]
        body = helper.make_graph(nodes, "body", [value(image, kind, [None] * 3)], [value(result, kind, [None] * 3)])
        name = self.w.op("Scan", [x], self.w.channels[x], body=body, num_scan_inputs=1)
        return self.put(name, self.sizes[x])
