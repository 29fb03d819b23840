"""Every structure of the family, as PyTorch's exporter writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_block_becomes_one_convolution(name: str) -> None:
    model = randomized(RiRConfig(**{**SMALL, **STRUCTURES[name]}))
    folded = check(model, export(model, ExportOptions((3, 16, 16))))
    counts = ops(folded)
    # stem, four layers, head; each but the head through one relu; then the pool.
    assert counts["Conv"] == 6
    assert counts["Relu"] == 5
    assert sum(counts.values()) == 12


@pytest.mark.parametrize("position", ["before-relu", "after-relu"])
@pytest.mark.parametrize("shortcut", ["projection", "zero-pad"])
@pytest.mark.parametrize("outer", ["residual", "both"])
def test_outer_shortcuts(outer: str, shortcut: str, position: str, tmp_path: Path) -> None:
    stages = (Stage(4, 6, 4), Stage(8, 8, 2, stride=2))
    changes = {"outer": outer, "shortcut": shortcut, "outer_position": position, "stages": stages}
    config = RiRConfig(**{**SMALL, **changes})
    model = randomized(config)
    graph = (
        export(model, ExportOptions((3, 16, 16)))
        if position == "before-relu"
        else torchscript(model, torch.zeros(2, 3, 16, 16), tmp_path / "traced.onnx", 17)
    )
    counts = ops(check(model, graph))
    # At most: a projection that only the linear head reads is composed with the head.
    projections = (2 if outer == "both" else 1) if shortcut == "projection" else 0
    assert 8 <= counts["Conv"] <= 8 + projections
    assert counts["Add"] == 3  # one a pair
    assert "BatchNormalization" not in counts


def test_shortcuts_over_two_layers_and_the_ends_of_the_family() -> None:
    for stages, stem, changes, convs, adds in (
        ((Stage(4, 6, 2), Stage(4, 6, 2)), (4, 6), {"shortcut_depth": 2}, 6, 2),
        ((Stage(8, 0, 2), Stage(8, 0, 2)), (8, 0), {"shortcut_depth": 2, "norm": "branch"}, 6, 2),
        ((Stage(0, 8, 2), Stage(0, 8, 2, 2)), (0, 8), {}, 6, 0),
    ):
        model = randomized(RiRConfig(**{**SMALL, "stages": stages, "stem": stem, **changes}))
        counts = ops(check(model, export(model, ExportOptions((3, 16, 16)))))
        assert (counts["Conv"], counts["Add"]) == (convs, adds), changes


def test_folded_rir_is_the_plain_cnn_node_for_node() -> None:
    """The full-size RiR with random weights, against the plain CNN of the same widths."""
    rir = fold(export(randomized(preset("rir-18-wide")), ExportOptions((3, 32, 32))))
    cnn = fold(export(randomized(preset("cnn-18-wide")), ExportOptions((3, 32, 32))))

    def shape_of(model: ir.Model) -> list[object]:
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
