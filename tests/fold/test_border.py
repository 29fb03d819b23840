"""Diverse Branch Blocks, whose border is padded with what batch norm makes of zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional

from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from tests.fold.graphs import Writer, check, ops, relative_error
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript


class NormAndPad(nn.Module):
    """Batch norm, then a border of what it makes of zero, as the authors' code has it."""

    def __init__(self, channels: int, pad: int) -> None:
        super().__init__()
        self.bn, self.pad = nn.BatchNorm2d(channels), pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bn, pad = self.bn, self.pad
        y = functional.pad(bn(x), [pad] * 4)
        values = bn.bias.detach() - bn.running_mean * bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)  # type: ignore[operator]
        values = values.view(1, -1, 1, 1)
        y[:, :, 0:pad, :] = values
        y[:, :, -pad:, :] = values
        y[:, :, :, 0:pad] = values
        y[:, :, :, -pad:] = values
        return y


class DiverseBranchBlock(nn.Module):
    def __init__(self, cols: int, rows: int, k: int = 3, stride: int = 1) -> None:
        super().__init__()
        pad = k // 2
        self.plain = nn.Sequential(nn.Conv2d(cols, rows, k, stride, pad, bias=False), nn.BatchNorm2d(rows))
        self.point = nn.Sequential(nn.Conv2d(cols, rows, 1, stride, bias=False), nn.BatchNorm2d(rows))
        one = (nn.Conv2d(cols, rows, 1, bias=False), nn.Conv2d(cols, cols, 1, bias=False))
        self.mean = nn.Sequential(one[0], NormAndPad(rows, pad), nn.AvgPool2d(k, stride), nn.BatchNorm2d(rows))
        wide = nn.Conv2d(cols, rows, k, stride, bias=False)
        self.deep = nn.Sequential(one[1], NormAndPad(cols, pad), wide, nn.BatchNorm2d(rows))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.plain(x) + self.point(x) + self.mean(x) + self.deep(x))


def test_one_convolution_a_block_from_the_dynamo_exporter() -> None:
    model = randomize(nn.Sequential(DiverseBranchBlock(3, 4)))
    folded = hold_against_torch(model, export(model, ExportOptions((3, 8, 8))), (3, 8, 8))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


def test_one_convolution_a_block_from_torchscript_at_a_fixed_batch(tmp_path: Path) -> None:
    model = randomize(nn.Sequential(DiverseBranchBlock(3, 4), DiverseBranchBlock(4, 6, 5, stride=2)))
    graph = torchscript(model, torch.zeros(1, 3, 12, 12), tmp_path / "traced.onnx", 17, dynamic=False)
    folded = hold_against_torch(model, graph, (3, 12, 12), batches=(1,))
    assert ops(folded) == {"Conv": 2, "Relu": 2}


def test_torchscript_at_a_dynamic_batch_is_refused_by_name(tmp_path: Path) -> None:
    model = randomize(nn.Sequential(DiverseBranchBlock(3, 4)))
    graph = torchscript(model, torch.zeros(1, 3, 8, 8), tmp_path / "traced.onnx", 17)
    result = fold(graph)
    assert [refusal.node for refusal in result.refused] == ["/0/mean/mean.1/ScatterND", "/0/deep/deep.1/ScatterND"]
    assert "depend on the input's size or batch" in result.refused[0].reason
    assert result.after.convs == 4  # of 5: what needs no border is one


def _strips(sizes: tuple[int, int] = (8, 8)) -> list[tuple[int, list[int]]]:
    """(axis, places) of the four strips of a border of one."""
    return [(2, [0]), (2, [sizes[0] + 1]), (3, [0]), (3, [-1])]


def _bordered(w: Writer, x: str, values: Any, strips: list[tuple[int, list[int]]], size: int = 10) -> str:
    """x padded by one, and ``values`` scattered into strips of it."""
    channels = w.channels[x]
    y = w.op("Pad", [x, w.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))], channels)
    for axis, places in strips:
        perm = [2, 1, 0, 3] if axis == 2 else [3, 1, 2, 0]
        shape = [2, channels, 1, size] if axis == 2 else [2, channels, size, 1]
        full = np.broadcast_to(values.reshape(1, -1, 1, 1), shape).transpose(perm)
        turned = w.op("Transpose", [y], channels, perm=perm)
        rows = np.array(places)[:, None]
        written = w.op("ScatterND", [turned, w.constant(rows), w.constant(full.copy())], channels)
        y = w.op("Transpose", [written], channels, perm=perm)
    return y


def _graph(change: str = "") -> ir.Model:
    w = Writer()
    x = w.input(3)
    weight, bias = w.rng.standard_normal((4, 3, 1, 1)), w.rng.standard_normal(4)
    inner = w.op("Conv", [x, w.constant(weight), w.constant(bias)], 4)
    strips, values = _strips(), bias
    if change == "a strip is missing":
        strips = strips[:3]
    if change == "another value":
        values = bias + 0.01
    if change == "inside":
        strips = [(2, [1]), *strips]
    if change == "twice":
        strips = [*strips, strips[0]]
    y = w.conv(_bordered(w, inner, values, strips), 4, 3, pads=[0] * 4)
    return w.model(w.relu(w.add(y, w.conv(x, 4))))


@pytest.mark.parametrize("change", ["", "twice"])
def test_a_border_of_the_bias_is_no_border(change: str) -> None:
    assert ops(check(_graph(change), batch=2)) == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("change", ["a strip is missing", "another value", "inside"])
def test_any_other_border_stays(change: str) -> None:
    model = _graph(change)
    result = fold(model)
    assert ops(result.model)["ScatterND"] == ops(model)["ScatterND"]
    assert relative_error(model, result.model, batch=2) < 1e-9
    assert bool(result.refused) == (change != "a strip is missing")


def test_a_border_without_a_convolution_beside_it_is_a_pad_and_an_add() -> None:
    w = Writer()
    x = w.input(3)
    bias = w.rng.standard_normal(4)
    inner = w.op("Conv", [x, w.constant(w.rng.standard_normal((4, 3, 1, 1))), w.constant(bias)], 4)
    pooled = w.op("MaxPool", [_bordered(w, inner, bias, _strips())], 4, kernel_shape=[3, 3])
    assert ops(check(w.model(pooled), batch=2)) == {"Conv": 1, "Pad": 1, "Add": 1, "MaxPool": 1}


def test_a_pad_before_a_pool_stays_a_pad() -> None:
    """It is a convolution with ones, but nobody should compute it as one."""
    w = Writer()
    x = w.relu(w.bn(w.conv(w.input(3), 4)))
    padded = w.op("Pad", [x, w.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1]))], 4)
    strided = w.op("MaxPool", [w.subsample(padded, 2)], 4, kernel_shape=[2, 2])
    assert ops(check(w.model(strided))) == {"Conv": 1, "Relu": 1, "Pad": 1, "Slice": 1, "MaxPool": 1}


@pytest.mark.parametrize("channels", [(1, 0), (0, 2), (1, 2)])
def test_channels_and_sides_padded_at_once(channels: tuple[int, int]) -> None:
    """The new channels read nothing, the others have a bias that the padding does not."""
    w = Writer()
    x = w.bn(w.conv(w.input(3), 4))
    low, high = channels
    padded = w.op("Pad", [x, w.constant(np.array([0, low, 1, 1, 0, high, 1, 0]))], 4 + low + high)
    check(w.model(w.relu(w.add(w.conv(padded, 3), w.conv(padded, 3, 1)))), batch=2)
