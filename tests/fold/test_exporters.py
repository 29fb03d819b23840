"""Graphs as PyTorch's two exporters write them, of every structure of the family."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from rir_deploy.export import ExportOptions, export
from rir_deploy.fold import fold
from rir_deploy.models import RiRConfig, Stage, preset
from rir_deploy.models.rir import RiR
from tests.fold.graphs import ops

ort = pytest.importorskip("onnxruntime")

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


def randomized(config: RiRConfig, seed: int = 0) -> RiR:
    """A network whose batch norms do something."""
    torch.manual_seed(seed)
    model = RiR(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def torchscript(model: nn.Module, example: torch.Tensor, path: Path, opset: int) -> ir.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )
    return ir.load(path)


def run(model: ir.Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


def check(model: nn.Module, graph: ir.Model, shape: tuple[int, ...] = (3, 16, 16)) -> ir.Model:
    """Fold a graph and hold it against PyTorch, at batches it was not traced with."""
    result = fold(graph)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).numpy()
        assert np.abs(run(result.model, x) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    assert not result.refused
    return result.model


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
def test_outer_shortcuts(outer: str, shortcut: str, position: str) -> None:
    stages = (Stage(4, 6, 4), Stage(8, 8, 2, stride=2))
    changes = {"outer": outer, "shortcut": shortcut, "outer_position": position, "stages": stages}
    config = RiRConfig(**{**SMALL, **changes})
    model = randomized(config)
    counts = ops(check(model, export(model, ExportOptions((3, 16, 16)))))
    # At most: a projection that only the linear head reads is composed with the head.
    projections = (2 if outer == "both" else 1) if shortcut == "projection" else 0
    assert 8 <= counts["Conv"] <= 8 + projections
    assert counts["Add"] == 3  # one a pair
    assert "BatchNormalization" not in counts


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("shortcut", ["projection", "zero-pad"])
def test_torchscript_exporter(shortcut: str, opset: int, tmp_path: Path) -> None:
    model = randomized(RiRConfig(**{**SMALL, "shortcut": shortcut}))
    graph = torchscript(model, torch.zeros(2, 3, 16, 16), tmp_path / "traced.onnx", opset)
    counts = ops(check(model, graph))
    assert counts["Conv"] == 6
    assert not counts.keys() & {"Add", "BatchNormalization", "Pad"}


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_dynamo_exporter_opsets(opset: int) -> None:
    model = randomized(RiRConfig(**SMALL))
    graph = export(model, ExportOptions((3, 16, 16), opset))
    assert graph.graph.opset_imports[""] == opset
    assert ops(check(model, graph))["Conv"] == 6


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
