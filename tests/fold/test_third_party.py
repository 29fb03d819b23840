"""Models from the packages that ship them, and the pytorch-cifar100 layout: one convolution a block."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from rir_deploy.export import ExportOptions, export
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.rir import RiR
from tests.fold.graphs import ops
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript

BRANCHES = {"Add", "BatchNormalization", "Split", "Slice", "Pad", "Mul"}


def _graph(model: nn.Module, exporter: str, shape: tuple[int, int, int], folder: Path) -> ir.Model:
    if exporter == "dynamo":
        return export(model, ExportOptions(shape))
    return torchscript(model, torch.zeros(2, *shape), folder / "traced.onnx", 17)


@pytest.mark.parametrize(
    ("name", "exporter"), [("rir_cifar10", "dynamo"), ("rir_cifar100", "torchscript"), ("rir_svhn", "torchscript")]
)
def test_pytorchcv(name: str, exporter: str, tmp_path: Path) -> None:
    package = pytest.importorskip("pytorchcv.models.rir_cifar")
    model = randomize(getattr(package, name)())
    shape = (3, 32, 32)
    counts = ops(hold_against_torch(model, _graph(model, exporter, shape, tmp_path), shape, batches=(2,)))
    assert counts["Conv"] == 18
    assert counts["Relu"] == 17
    assert not counts.keys() & BRANCHES


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_pytorch_cifar100(exporter: str, tmp_path: Path) -> None:
    """Biases everywhere, a strided projection with bias, and a head of a convolution and two linear layers."""
    config = RiRConfig(
        num_classes=7,
        in_channels=3,
        image_size=(32, 32),
        stem=(4, 4),
        stages=(Stage(4, 4, 2), Stage(8, 8, 2, stride=2), Stage(16, 16, 2, stride=2)),
        stem_bias=True,
        conv_bias=True,
        projection_bias=True,
        head="mlp",
        mlp_widths=(10, 30),
    )
    model = randomize(RiR(config))
    counts = ops(hold_against_torch(model, _graph(model, exporter, (3, 32, 32), tmp_path), (3, 32, 32)))
    assert counts["Conv"] == 8  # stem, six layers, head
    assert not counts.keys() & BRANCHES


@pytest.mark.parametrize(
    ("name", "convs"),
    [
        ("repvgg_a0", 22),
        # A stem, then 21 blocks of a depthwise and a pointwise convolution.
        ("mobileone_s0", 43),
    ],
)
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_timm(name: str, convs: int, exporter: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = randomize(timm.create_model(name, num_classes=5))
    shape = (3, 64, 64)
    counts = ops(hold_against_torch(model, _graph(model, exporter, shape, tmp_path), shape, batches=(2,)))
    assert (counts["Conv"], counts["Relu"]) == (convs, convs)
    assert not counts.keys() & BRANCHES
