"""Multi-branch training blocks, written down in torch from their papers: RepVGG, ACNet, MobileOne."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rir_deploy.export import ExportOptions, export
from tests.fold.graphs import ops
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript


def normed(cols: int, rows: int, k: int | tuple[int, int], stride: int = 1, groups: int = 1) -> nn.Module:
    taps = (k, k) if isinstance(k, int) else k
    pads = (taps[0] // 2, taps[1] // 2)
    return nn.Sequential(nn.Conv2d(cols, rows, taps, stride, pads, groups=groups, bias=False), nn.BatchNorm2d(rows))


class Branches(nn.Module):
    """relu of a sum of branches."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return torch.relu(total)


def repvgg(cols: int, rows: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """3x3, 1x1 and, where the shape stays, batch norm alone."""
    branches = [normed(cols, rows, 3, stride, groups), normed(cols, rows, 1, stride, groups)]
    return Branches(*branches, *([nn.BatchNorm2d(cols)] if (cols, stride) == (rows, 1) else []))


def acnet(cols: int, rows: int, stride: int = 1) -> nn.Module:
    """3x3 with its skeleton: 1x3 and 3x1."""
    return Branches(*(normed(cols, rows, k, stride) for k in (3, (1, 3), (3, 1))))


def mobileone(cols: int, rows: int, stride: int = 1, copies: int = 3) -> nn.Module:
    """Depthwise: several 3x3, a 1x1 scale, batch norm; then pointwise: several 1x1, batch norm."""
    deep = [normed(cols, cols, 3, stride, cols) for _ in range(copies)] + [normed(cols, cols, 1, stride, cols)]
    wide = [normed(cols, rows, 1) for _ in range(copies)]
    deep_skip = [nn.BatchNorm2d(cols)] if stride == 1 else []
    wide_skip = [nn.BatchNorm2d(cols)] if cols == rows else []
    return nn.Sequential(Branches(*deep, *deep_skip), Branches(*wide, *wide_skip))


NETWORKS = {
    "repvgg": (lambda: nn.Sequential(repvgg(3, 4, 2), repvgg(4, 4), repvgg(4, 8, 2)), 3),
    "repvgg in groups": (lambda: nn.Sequential(repvgg(3, 4), repvgg(4, 4, groups=2), repvgg(4, 8, 2, groups=2)), 3),
    "acnet": (lambda: nn.Sequential(acnet(3, 4), acnet(4, 6, 2)), 2),
    "mobileone": (lambda: nn.Sequential(repvgg(3, 4, 2), mobileone(4, 4), mobileone(4, 6, 2)), 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_convolution_a_block(name: str, tmp_path: Path) -> None:
    make, convs = NETWORKS[name]
    model = randomize(make())
    options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    graph = torchscript(model, torch.zeros(2, 3, 13, 12), tmp_path / "traced.onnx", 17, **options)
    assert ops(graph)["BatchNormalization"] == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert ops(hold_against_torch(model, graph, (3, 13, 12))) == {"Conv": convs, "Relu": convs}


@pytest.mark.parametrize("axes", [1, 3])
def test_other_numbers_of_axes(axes: int, tmp_path: Path) -> None:
    """Signals and volumes."""
    conv, norm = (getattr(nn, f"{kind}{axes}d") for kind in ("Conv", "BatchNorm"))
    torch.manual_seed(0)
    one, two = ([nn.Sequential(conv(3, 3, k, padding=k // 2, bias=False), norm(3)) for k in (3, 1)] for _ in range(2))
    model = nn.Sequential(Branches(*one, nn.Identity()), Branches(*two, norm(3)))
    for parameter in model.parameters():  # for batch norms that do something
        nn.init.uniform_(parameter, -0.5, 0.5)
    model.train()(torch.randn(4, 3, *[5] * axes))
    shape = (3, *[6] * axes)
    graph = torchscript(model.eval(), torch.zeros(2, *shape), tmp_path / "traced.onnx", 17)
    assert ops(hold_against_torch(model, graph, shape)) == {"Conv": 2, "Relu": 2}


def test_one_convolution_a_block_from_dynamo() -> None:
    model = randomize(nn.Sequential(repvgg(3, 4, 2), acnet(4, 4), mobileone(4, 4, copies=2)))
    folded = hold_against_torch(model, export(model, ExportOptions((3, 13, 12))), (3, 13, 12))
    assert ops(folded) == {"Conv": 4, "Relu": 4}
