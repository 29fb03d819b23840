"""Random graphs of the RiR family, written node by node as a tracer would write them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from hypothesis import strategies as st

from tests.fold.graphs import Writer


@dataclass(frozen=True)
class Family:
    """One member of the family. ``layers`` are (residual width, transient width, stride) a layer pair."""

    layers: tuple[tuple[int, int, int], ...]
    kernel: tuple[int, int] = (3, 3)
    bias: bool = False
    norm: str = "streams"  # BN per stream, over the join, or none
    shortcut: str = "pad"  # or "projection", "projection-bn"
    outer: str = "none"  # or "residual", "both"
    outer_before_relu: bool = False
    scale: float | None = None
    scale_after_norm: bool = False
    joined: bool = False  # streams kept in one tensor and sliced
    stride_in_second: bool = False
    branches: str = "one"  # or "point", "average": every convolution beside a 1x1, or beside a 1x1 and a pool
    activation: str = "Relu"
    seed: int = 0
    opset: int = 18


# What each property is drawn from; the likelier choices stand there twice.
WIDTHS, STRIDES, MAX_LAYERS = range(1, 6), (1, 1, 2), 3
CHOICES: dict[str, tuple[Any, ...]] = {
    "kernel": ((3, 3), (1, 1), (3, 1), (5, 3)),
    "bias": (False, True),
    "norm": ("streams", "joined", "none"),
    "shortcut": ("pad", "projection", "projection-bn"),
    "outer": ("none", "none", "residual", "both"),
    "outer_before_relu": (False, True),
    "scale": (None, 0.5, 0.25),
    "scale_after_norm": (False, True),
    "joined": (False, True),
    "stride_in_second": (False, True),
    "branches": ("one", "one", "point", "average"),
    "activation": ("Relu", "Relu", "LeakyRelu", "HardSwish"),
    "opset": (14, 17, 18, 20),
}


@st.composite
def families(draw: st.DrawFn) -> Family:
    width = st.sampled_from(WIDTHS)
    layers = draw(st.lists(st.tuples(width, width, st.sampled_from(STRIDES)), min_size=1, max_size=MAX_LAYERS))
    chosen = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    return Family(tuple(layers), seed=draw(st.integers(0, 2**16)), **chosen)


def sample(rng: random.Random) -> Family:
    """The same without hypothesis, for long runs."""
    layers = [(rng.choice(WIDTHS), rng.choice(WIDTHS), rng.choice(STRIDES)) for _ in range(rng.randint(1, MAX_LAYERS))]
    chosen = {name: rng.choice(choices) for name, choices in CHOICES.items()}
    return Family(tuple(layers), seed=rng.randrange(2**16), **chosen)


def build(family: Family, size: tuple[int | str, int | str] = (8, 8)) -> ir.Model:
    return _Builder(family).model(size)


class _Builder:
    def __init__(self, family: Family) -> None:
        self.f = family
        self.w = Writer(family.seed, family.opset)

    def model(self, size: tuple[int | str, int | str]) -> ir.Model:
        w, x = self.w, self.w.input(3, size)
        residual, transient, _ = self.f.layers[0]
        r, t = self.activate(*self.normalize(w.conv(x, residual), w.conv(x, transient)))
        for rows_r, rows_t, stride in self.f.layers:
            r, t = self.pair(r, t, (rows_r, rows_t), stride)
        logits = w.bn(w.conv(w.concat(r, t), 4, 1))
        return w.model(w.op("GlobalAveragePool", [logits], 4))

    def pair(self, r: str, t: str, rows: tuple[int, int], stride: int) -> tuple[str, str]:
        first, second = (1, stride) if self.f.stride_in_second else (stride, 1)
        r0, t0 = r, t
        r, t = self.activate(*self.layer(r, t, rows, first))
        a, b = self.layer(r, t, rows, second)
        if not self.f.outer_before_relu:
            a, b = self.activate(a, b)
        if self.f.outer != "none":
            a = self.w.add(a, self.shortcut(r0, rows[0], stride))
        if self.f.outer == "both":
            b = self.w.add(b, self.shortcut(t0, rows[1], stride))
        return self.activate(a, b) if self.f.outer_before_relu else (a, b)

    def layer(self, r: str, t: str, rows: tuple[int, int], stride: int) -> tuple[str, str]:
        """Both streams before the activation."""
        if self.f.joined:
            x, cut = self.w.concat(r, t), self.w.channels[r]
            r, t = self.w.slice(x, 0, cut), self.w.slice(x, cut, self.w.channels[x])
        strides = [stride, stride]
        kinds = ((r, rows[0]), (t, rows[0]), (r, rows[1]), (t, rows[1]))
        rr, tr, rt, tt = (self.branch(x, n, strides) for x, n in kinds)
        a, b = self.w.add(rr, tr), self.w.add(tt, rt)
        if self.f.scale is not None and not self.f.scale_after_norm:
            a = self.w.scale(a, self.f.scale)
        shortcut = self.shortcut(r, rows[0], stride)
        if self.f.scale is not None and self.f.scale_after_norm:
            a, b = self.normalize(a, b)
            return self.w.add(self.w.scale(a, self.f.scale), shortcut), b
        return self.normalize(self.w.add(a, shortcut), b)

    def branch(self, x: str, rows: int, strides: list[int]) -> str:
        main = self.w.conv(x, rows, self.f.kernel, bias=self.f.bias, strides=strides)
        if self.f.branches == "one":
            return main
        if self.f.branches == "point":
            return self.w.add(main, self.w.conv(x, rows, 1, bias=self.f.bias, strides=strides))
        pads = [tap // 2 for tap in self.f.kernel] * 2
        window = {"kernel_shape": list(self.f.kernel), "pads": pads, "strides": strides, "count_include_pad": 1}
        return self.w.add(self.w.op("AveragePool", [self.w.conv(x, rows, 1)], rows, **window), main)

    def shortcut(self, x: str, rows: int, stride: int) -> str:
        if stride == 1 and self.w.channels[x] == rows:
            return x
        # Zero channels can only be added, not taken away.
        if self.f.shortcut == "pad" and rows >= self.w.channels[x]:
            strided = self.w.subsample(x, stride) if stride > 1 else x
            return self.w.pad_channels(strided, rows) if rows > self.w.channels[x] else strided
        projected = self.w.conv(x, rows, 1, bias=self.f.bias, strides=[stride, stride])
        return self.w.bn(projected) if self.f.shortcut == "projection-bn" else projected

    def normalize(self, a: str, b: str) -> tuple[str, str]:
        if self.f.norm == "none":
            return a, b
        if self.f.norm == "streams":
            return self.w.bn(a), self.w.bn(b)
        cut = self.w.channels[a]
        x = self.w.bn(self.w.concat(a, b))
        return self.w.slice(x, 0, cut), self.w.slice(x, cut, self.w.channels[x])

    def activate(self, a: str, b: str) -> tuple[str, str]:
        return tuple(self.w.op(self.f.activation, [x], self.w.channels[x]) for x in (a, b))  # type: ignore[return-value]
