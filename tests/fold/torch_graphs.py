"""Torch modules as graphs, and graphs held against the modules they came from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn

from rir_deploy.fold import fold

M = TypeVar("M", bound=nn.Module)


def randomize(model: M, seed: int = 0) -> M:
    """Random weights, and batch norms that do something."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def torchscript(model: nn.Module, example: torch.Tensor, path: Path, opset: int, **options: Any) -> ir.Model:
    """``dynamic``: axes that vary beside the batch, or False for none at all; other options go to the exporter."""
    dynamic = options.pop("dynamic", {})
    axes = {} if dynamic is False else {"input": {0: "batch", **dynamic}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
        torch.onnx.export(
            model, (example,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names, **options
        )
    return ir.load(path)


def run(model: ir.Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": x})[0])


def hold_against_torch(
    model: nn.Module, graph: ir.Model, shape: tuple[int, ...], batches: tuple[int, ...] = (1, 3)
) -> ir.Model:
    """Fold a graph and hold it against PyTorch, at batches it was not traced with."""
    result = fold(graph)
    for batch in batches:
        x = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).numpy()
        assert np.abs(run(result.model, x) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert result.after.macs <= result.before.macs
    assert result.after.weight_bytes <= result.before.weight_bytes
    assert not result.refused
    return result.model
