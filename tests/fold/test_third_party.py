"""Models from the packages that ship them (the extra [models]), and the pytorch-cifar100 layout."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.rir import RiR
from tests.fold.graphs import ops
from tests.fold.third_party import SHIPPED, Exporter, Shipped
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript

BRANCHES = {"Add", "BatchNormalization", "Split", "Slice", "Pad", "Mul"}


def _graph(model: nn.Module, exporter: Exporter, shape: tuple[int, int, int], folder: Path) -> ir.Model:
    if exporter == "dynamo":
        return export(model, ExportOptions(shape))
    return torchscript(model, torch.zeros(2, *shape), folder / "traced.onnx", 17)


def _build(shipped: Shipped) -> nn.Module:
    """The model, or a skip that says why it is not to be had."""
    package = shipped.package.partition(".")[0]
    try:
        return shipped.build()
    except ImportError as error:
        pytest.skip(f'{package} needs {error.name}, which is not installed: python -m pip install ".[models]"')
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        pytest.skip(f"{package} cannot be imported: torchvision was built for another torch ({error})")


@pytest.mark.parametrize(
    ("shipped", "exporter"),
    [pytest.param(one, exporter, id=f"{one.name}-{exporter}") for one in SHIPPED for exporter in one.exporters],
)
def test_shipped(shipped: Shipped, exporter: Exporter, tmp_path: Path) -> None:
    model = _build(shipped)
    graph = _graph(model, exporter, shipped.shape, tmp_path)
    result = fold(graph)
    assert (result.after.convs, result.blocks) == (shipped.convs, shipped.blocks)
    folded = hold_against_torch(model, graph, shipped.shape, batches=(2,))
    if shipped.whole:
        assert not ops(folded).keys() & BRANCHES


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_pytorch_cifar100(exporter: Exporter, tmp_path: Path) -> None:
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
