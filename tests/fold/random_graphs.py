"""Random graphs of no family at all: any op that the fold knows on any tensor, read by any number of others."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.fold.graphs import Writer

SIZE = (7, 6)
ACTIVATIONS = ("Relu", "Relu", "LeakyRelu", "HardSwish", "Clip")
OPSETS = (14, 17, 18, 20)


def build(seed: int) -> ir.Model:
    return Builder(seed).model()


class Builder:
    """``sizes`` are the height and width of every tensor so far."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.w = Writer(seed, self.rng.choice(OPSETS))
        self.sizes: dict[str, tuple[int, int]] = {}
        self.kernels: list[str] = []
        # Convolutions, batch norms and activations are what networks are made of.
        self.steps: list[Callable[[str], str]] = [
            *[self.conv] * 4,
            *[self.same_conv] * 4,
            *[self.activation] * 3,
            *[self.add] * 4,
            *[self.norm] * 2,
            *(self.concat, self.slice, self.split, self.pad, self.subsample, self.pool, self.affine, self.shared),
        ]

    def model(self) -> ir.Model:
        self.put(self.w.input(self.rng.randint(1, 4), SIZE), SIZE)
        for _ in range(self.rng.randint(4, 16)):
            self.rng.choice(self.steps)(self.pick())
        read = {name for node in self.w.nodes for name in node.input}
        # Some graphs have nodes that nobody reads, and outputs that others read.
        leaves = self.rng.random() < 0.7
        outputs = [name for name in self.sizes if name not in read] if leaves else [self.pick() for _ in range(2)]
        return self.w.model(*(dict.fromkeys(name for name in outputs if name != "x") or [self.activation("x")]))

    def may_meet(self, x: str, other: str, op: str) -> bool:
        """Whether two tensors of equal height and width may be inputs of one op."""
        return True

    def put(self, name: str, size: tuple[int, int]) -> str:
        self.sizes[name] = size
        return name

    def pick(self) -> str:
        """Any tensor, late ones rather than early ones."""
        names = list(self.sizes)
        return names[-1 - min(int(self.rng.expovariate(0.5)), len(names) - 1)]

    def one(self, x: str, op: str, **attributes: object) -> str:
        return self.put(self.w.op(op, [x], self.w.channels[x], **attributes), self.sizes[x])

    def conv(self, x: str) -> str:
        choices = ((1, 2, 3, 3), (1, 1, 2), (1, 1, 2))
        taps, steps, gaps = ([self.rng.choice(numbers) for _ in range(2)] for numbers in choices)
        pads = [self.rng.randint(0, 2) for _ in range(4)]
        size = self.window(x, taps, steps, gaps, pads)
        if min(size) < 1:
            return self.same_conv(x)
        channels = self.w.channels[x]
        group = self.rng.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
        rows = group * self.rng.randint(1, 3)
        options = {"strides": steps, "dilations": gaps, "pads": pads, "group": group}
        return self.put(self.w.conv(x, rows, (taps[0], taps[1]), self.rng.random() < 0.3, **options), size)

    def same_conv(self, x: str) -> str:
        k = self.rng.choice((1, 3, 3))
        name = self.w.conv(x, self.rng.choice((2, 3, 4)), k, self.rng.random() < 0.3)
        self.kernels.append(self.w.nodes[-1].input[1])
        return self.put(name, self.sizes[x])

    def shared(self, x: str) -> str:
        """A convolution with the weight of another."""
        shapes = {tensor.name: tensor.dims for tensor in self.w.weights}
        fitting = [name for name in self.kernels if shapes[name][1] == self.w.channels[x]]
        if not fitting:
            return self.same_conv(x)
        rows, _, *taps = shapes[weight := self.rng.choice(fitting)]
        pads = [tap // 2 for tap in taps] * 2
        return self.put(self.w.op("Conv", [x, weight], rows, kernel_shape=list(taps), pads=pads), self.sizes[x])

    def window(self, x: str, taps: list[int], steps: list[int], gaps: list[int], pads: list[int]) -> tuple[int, int]:
        height, width = (
            (self.sizes[x][i] + pads[i] + pads[i + 2] - gaps[i] * (taps[i] - 1) - 1) // steps[i] + 1 for i in range(2)
        )
        return height, width

    def activation(self, x: str) -> str:
        op = self.rng.choice(ACTIVATIONS)
        if op == "Clip":
            bounds = [self.w.constant(np.array(bound)) for bound in (self.rng.choice((-1.0, 0.0)), 1.0)]
            return self.put(self.w.op(op, [x, *bounds], self.w.channels[x]), self.sizes[x])
        return self.one(x, op, **({"alpha": self.rng.choice((0.1, 0.2))} if op == "LeakyRelu" else {}))

    def norm(self, x: str) -> str:
        return self.put(self.w.bn(x), self.sizes[x])

    def add(self, x: str) -> str:
        """A sum of two or three tensors of one shape; where there is no other, of x and a convolution of it."""
        shape = self.w.channels[x], self.sizes[x]
        fitting = [name for name in self.sizes if (self.w.channels[name], self.sizes[name]) == shape and name != x]
        fitting = [name for name in fitting if self.may_meet(x, name, "Add")]
        if not fitting:
            fitting = [self.put(self.w.conv(x, shape[0], self.rng.choice((1, 3))), shape[1])]
        others = [self.rng.choice(fitting[-4:]) for _ in range(self.rng.choice((1, 1, 2)))]
        op = self.rng.choice(("Add", "Add", "Sub")) if len(others) == 1 else "Sum"
        return self.put(self.w.op(op, [x, *others], shape[0]), shape[1])

    def concat(self, x: str) -> str:
        fitting = [name for name, size in self.sizes.items() if size == self.sizes[x] and self.w.channels[name] < 6]
        fitting = [name for name in fitting if self.may_meet(x, name, "Concat")]
        other = self.rng.choice(fitting) if fitting else x
        return self.put(self.w.concat(*self.rng.sample([x, other], 2)), self.sizes[x])

    def slice(self, x: str) -> str:
        start = self.rng.randrange(self.w.channels[x])
        return self.put(self.w.slice(x, start, self.rng.randint(start + 1, self.w.channels[x])), self.sizes[x])

    def split(self, x: str) -> str:
        channels = self.w.channels[x]
        if channels < 2:
            return self.norm(x)
        cut = self.rng.randint(1, channels - 1)
        sizes = self.w.constant(np.array([cut, channels - cut], dtype=np.int64))
        first = self.w.op("Split", [x, sizes], cut, outputs=2, axis=1)
        self.w.channels[f"{first}_1"] = channels - cut
        self.put(f"{first}_1", self.sizes[x])
        return self.put(first, self.sizes[x])

    def pad(self, x: str) -> str:
        low, high = (self.rng.choice((0, 0, 1)) for _ in range(2))
        # Negative amounts crop.
        sides = (-1, 0, 1) if min(self.sizes[x]) > 2 else (0, 1)
        top, left, bottom, right = (self.rng.choice(sides) for _ in range(4))
        amounts = self.w.constant(np.array([0, low, top, left, 0, high, bottom, right], dtype=np.int64))
        height, width = self.sizes[x]
        name = self.w.op("Pad", [x, amounts], self.w.channels[x] + low + high)
        return self.put(name, (height + top + bottom, width + left + right))

    def subsample(self, x: str) -> str:
        height, width = ((length + 1) // 2 for length in self.sizes[x])
        return self.put(self.w.subsample(x, 2), (height, width))

    def pool(self, x: str) -> str:
        taps, steps = [self.rng.choice((1, 2, 3)) for _ in range(2)], [self.rng.choice((1, 1, 2)) for _ in range(2)]
        pads = [self.rng.randint(0, tap - 1) // 2 for tap in taps] * 2
        size = self.window(x, taps, steps, [1, 1], pads)
        if min(size) < 1:
            return self.norm(x)
        options: dict[str, object] = {"kernel_shape": taps, "strides": steps, "pads": pads}
        if self.rng.random() < 0.3 and not any(pads):
            return self.put(self.w.op("MaxPool", [x], self.w.channels[x], **options), size)
        counted = {"count_include_pad": self.rng.choice((0, 1))}
        return self.put(self.w.op("AveragePool", [x], self.w.channels[x], **options, **counted), size)

    def affine(self, x: str) -> str:
        """A scale, an offset, a division, a negation, or nothing."""
        op = self.rng.choice(("Mul", "Add", "Div", "Neg", "Identity"))
        if op in ("Neg", "Identity"):
            return self.one(x, op)
        shape = self.rng.choice(((), (1, self.w.channels[x], 1, 1)))
        numbers = self.w.rng.uniform(0.5, 2.0, shape)
        if op == "Mul":  # sometimes by zero, so that channels die
            numbers = numbers * (self.w.rng.random(shape) > 0.2)
        constant = self.w.constant(np.asarray(numbers))
        inputs = [x, constant] if op == "Div" else self.rng.sample([x, constant], 2)
        return self.put(self.w.op(op, inputs, self.w.channels[x]), self.sizes[x])
