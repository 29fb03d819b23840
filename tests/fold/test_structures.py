"""Dual-stream blocks in the ways people write them, traced from torch: one convolution a block, nothing left over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from tests.fold.graphs import ops
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript

SHAPE = (3, 13, 11)


@dataclass(frozen=True)
class Style:
    """``joined``: both streams in one tensor, split for the convolutions; ``joined_norm``: one batch norm over both."""

    kernel: tuple[int, int] = (3, 3)
    dilation: int = 1
    bias: bool = False
    joined: bool = False
    joined_norm: bool = False
    projection_bias: bool = False
    projection_norm: bool = False
    zero_pad: bool = False
    activation: type[nn.Module] = nn.ReLU


class Layer(nn.Module):
    """r, t [N, 4, ...], [N, 6, ...] to rows[0], rows[1] channels."""

    def __init__(self, style: Style, cols: tuple[int, int], rows: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.style, self.cols, self.rows, self.stride = style, cols, rows, stride
        pads = tuple(style.dilation * (tap - 1) // 2 for tap in style.kernel)
        self.convs = nn.ModuleList(
            nn.Conv2d(c, n, style.kernel, stride, pads, style.dilation, bias=style.bias) for n in rows for c in cols
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(sum(rows))] if style.joined_norm else map(nn.BatchNorm2d, rows))
        projected: list[nn.Module] = [nn.Conv2d(cols[0], rows[0], 1, stride, bias=style.projection_bias)]
        projected += [nn.BatchNorm2d(rows[0])] if style.projection_norm else []
        same = stride == 1 and cols[0] == rows[0]
        self.project = nn.Identity() if same else None if style.zero_pad else nn.Sequential(*projected)
        self.activation = style.activation()

    def shortcut(self, r: Tensor) -> Tensor:
        if self.project is not None:
            return self.project(r)
        strided = r[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(strided, (0, 0, 0, 0, 0, self.rows[0] - self.cols[0]))

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        if self.style.joined:
            streams = list(torch.split(torch.cat(streams, 1), list(self.cols), 1))
        r, t = streams
        rr, tr, rt, tt = (conv(x) for conv, x in zip(self.convs, (r, t, r, t), strict=True))
        sums = [rr + tr + self.shortcut(r), rt + tt]
        if self.style.joined_norm:
            return list(torch.split(self.activation(self.norms[0](torch.cat(sums, 1))), list(self.rows), 1))
        return [self.activation(norm(x)) for norm, x in zip(self.norms, sums, strict=True)]


class Network(nn.Module):
    def __init__(self, style: Style) -> None:
        super().__init__()
        self.stem = nn.ModuleList(nn.Conv2d(3, n, 3, padding=1) for n in (4, 6))
        widths = ((4, 6), (4, 6), (8, 5), (8, 5))
        self.layers = nn.ModuleList(
            Layer(style, widths[i], widths[i + 1], stride) for i, stride in enumerate((1, 2, 1))
        )
        self.head = nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        streams = [torch.relu(conv(x)) for conv in self.stem]
        for layer in self.layers:
            streams = layer(streams)
        return self.head(torch.cat(streams, 1)).mean((2, 3))


STYLES = {
    "as the paper": Style(),
    "bias": Style(bias=True),
    "non-square kernels": Style(kernel=(3, 5)),
    "dilation": Style(dilation=2),
    "dilated non-square": Style(kernel=(1, 3), dilation=3),
    "one tensor, split": Style(joined=True),
    "batch norm over the join": Style(joined_norm=True),
    "one tensor, one batch norm": Style(joined=True, joined_norm=True),
    "projection with bias": Style(projection_bias=True),
    "projection with norm": Style(projection_norm=True),
    "projection with bias and norm": Style(projection_bias=True, projection_norm=True),
    "zero-pad": Style(zero_pad=True),
    "ReLU6": Style(activation=nn.ReLU6),
    "LeakyReLU": Style(activation=nn.LeakyReLU),
    "Hardswish": Style(activation=nn.Hardswish),
}


@pytest.mark.parametrize(
    ("name", "kept"),
    [*((name, True) for name in STYLES), *((f"projection with {what}", False) for what in ("norm", "bias and norm"))],
)
def test_torchscript(name: str, kept: bool, tmp_path: Path) -> None:
    """``kept``: the exporter leaves all batch norms; else it folds those that follow a convolution."""
    model = randomize(Network(STYLES[name]))
    options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if kept else {}
    graph = torchscript(model, torch.zeros(2, *SHAPE), tmp_path / "traced.onnx", 17, **options)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert (ops(graph)["BatchNormalization"] == norms) == kept
    counts = ops(hold_against_torch(model, graph, SHAPE))
    assert counts.pop("ReduceMean") == 1
    activations = {op: n for op, n in counts.items() if op != "Conv"}
    assert counts["Conv"] == 5
    assert sum(activations.values()) == 4
    assert not activations.keys() & {"Add", "BatchNormalization", "Concat", "Mul", "Pad", "Slice", "Split"}
    assert fold(graph).blocks == 4


def test_dynamo() -> None:
    """All of it in one graph."""
    style = Style((3, 5), 2, joined=True, joined_norm=True, projection_bias=True, projection_norm=True)
    model = randomize(Network(style))
    counts = ops(hold_against_torch(model, export(model, ExportOptions(SHAPE)), SHAPE))
    assert counts["Conv"] == 5
    assert sum(counts.values()) == 5 + 4 + 1
