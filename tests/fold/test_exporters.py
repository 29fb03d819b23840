"""Every structure of the family, as PyTorch's exporters write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from rir_deploy.models import RiRConfig, Stage, preset
from rir_deploy.models.rir import RiR
from tests.fold.graphs import ops
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "in_channels": 3,
    "image_size": (16, 16),
    "stem": (4, 6),
    "stages": (Stage(4, 6, 2), Stage(8, 8, 2, stride=2)),
}
STRUCTURES: dict[str, dict[str, Any]] = {
    "projection": {},
    "zero-pad": {"shortcut": "zero-pad"},
    "projection with bias and norm": {"projection_bias": True, "projection_norm": True},
    "conv bias": {"conv_bias": True, "stem_bias": True},
    "stride in the second layer": {"stride_position": "second"},
    "uniform scale": {"branch_scale": "uniform"},
    "decreasing scale after norm": {"branch_scale": "decreasing", "norm": "branch"},
    "resnet init": {"resnet_init": True, "shortcut": "zero-pad", "stages": (Stage(4, 6, 2), Stage(8, 8, 2))},
}


def randomized(config: RiRConfig) -> RiR:
    return randomize(RiR(config))


def check(model: nn.Module, graph: ir.Model) -> ir.Model:
    return hold_against_torch(model, graph, (3, 16, 16))


def traced(model: RiR, folder: Path, exporter: str = "torchscript") -> ir.Model:
    """The dynamo exporter takes seconds: it writes what it writes in another way, TorchScript the rest."""
    height, width = model.config.image_size
    shape = (model.config.in_channels, height, width)
    if exporter == "dynamo":
        return export(model, ExportOptions(shape))
    return torchscript(model, torch.zeros(2, *shape), folder / "traced.onnx", 17)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *((name, "torchscript") for name in STRUCTURES),
        *((name, "dynamo") for name in ("projection with bias and norm", "decreasing scale after norm", "resnet init")),
    ],
)
def test_every_block_becomes_one_convolution(name: str, exporter: str, tmp_path: Path) -> None:
    model = randomized(RiRConfig(**{**SMALL, **STRUCTURES[name]}))
    graph = traced(model, tmp_path, exporter)
    counts = ops(check(model, graph))
    # stem, four layers, head; each but the head through one relu; then the pool.
    assert counts["Conv"] == 6
    assert counts["Relu"] == 5
    assert sum(counts.values()) == 12
    # With ResNet Init both streams are one convolution as traced.
    assert fold(graph).blocks == (0 if name == "resnet init" else 5)


@pytest.mark.parametrize("position", ["before-relu", "after-relu"])
@pytest.mark.parametrize("shortcut", ["projection", "zero-pad"])
@pytest.mark.parametrize("outer", ["residual", "both"])
def test_outer_shortcuts(outer: str, shortcut: str, position: str, tmp_path: Path) -> None:
    stages = (Stage(4, 6, 4), Stage(8, 8, 2, stride=2))
    changes = {"outer": outer, "shortcut": shortcut, "outer_position": position, "stages": stages}
    model = randomized(RiRConfig(**{**SMALL, **changes}))
    exporter = "dynamo" if (outer, position) == ("both", "before-relu") else "torchscript"
    graph = traced(model, tmp_path, exporter)
    counts = ops(check(model, graph))
    # At most: a projection that only the linear head reads is composed with the head.
    projections = (2 if outer == "both" else 1) if shortcut == "projection" else 0
    assert 8 <= counts["Conv"] <= 8 + projections
    assert counts["Add"] == 3  # one a pair
    assert not counts.keys() & {"BatchNormalization", "Split"}
    assert fold(graph).blocks >= 7  # the stem and every layer


def test_shortcuts_over_two_layers_and_the_ends_of_the_family(tmp_path: Path) -> None:
    for stages, stem, changes, convs, adds in (
        ((Stage(4, 6, 2), Stage(4, 6, 2)), (4, 6), {"shortcut_depth": 2}, 6, 2),
        ((Stage(8, 0, 2), Stage(8, 0, 2)), (8, 0), {"shortcut_depth": 2, "norm": "branch"}, 6, 2),
        ((Stage(0, 8, 2), Stage(0, 8, 2, 2)), (0, 8), {}, 6, 0),
    ):
        model = randomized(RiRConfig(**{**SMALL, "stages": stages, "stem": stem, **changes}))
        graph = traced(model, tmp_path)
        counts = ops(check(model, graph))
        assert (counts["Conv"], counts["Add"]) == (convs, adds), changes
        assert fold(graph).blocks == (5 if all(stem) else 0)


def test_folded_rir_is_the_plain_cnn_node_for_node(tmp_path: Path) -> None:
    """The full-size RiR with random weights, against the plain CNN of the same widths."""
    rir, cnn = (fold(traced(randomized(preset(name)), tmp_path)) for name in ("rir-18-wide", "cnn-18-wide"))
    assert (rir.blocks, cnn.blocks) == (17, 0)

    def shape_of(model: ir.Model) -> list[object]:
        model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
        return [
            (
                node.op_type,
                {name: a.value for name, a in node.attributes.items() if a.value != "NOTSET"},
                [str(value.shape) for value in node.inputs if value is not None],
                [str(value.shape) for value in node.outputs],
            )
            for node in model.graph
        ]

    assert shape_of(rir.model) == shape_of(cnn.model)
    assert rir.after.ops["Conv"] == 18
    assert (rir.after.macs, rir.after.params) == (cnn.after.macs, cnn.after.params)
