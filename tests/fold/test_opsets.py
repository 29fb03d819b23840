"""Both of PyTorch's exporters, over the opsets they write, the sizes that may vary, and the float types."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from rir_deploy.fold import fold
from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.rir import RiR
from tests.fold.graphs import ops
from tests.fold.torch_graphs import hold_against_torch, randomize, torchscript

SHAPE = (3, 16, 16)
FOLDED = {"Conv", "Relu", "Add", "BatchNormalization", "Pad", "Concat", "Slice", "Split", "Identity", "Constant"}
NEWEST = min(onnx.defs.onnx_opset_version(), 26)


def small(**changes: Any) -> RiR:
    stages = (Stage(4, 6, 1), Stage(8, 8, 1, stride=2))
    return randomize(
        RiR(RiRConfig(num_classes=5, in_channels=3, image_size=(16, 16), stem=(4, 6), stages=stages, **changes))
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def dynamo(model: RiR | torch.export.ExportedProgram, opset: int, *dims: Any) -> ir.Model:
    """``dims`` are the axes that vary beside the batch, as (axis, name, smallest); a program has its own."""
    dynamic = {0: torch.export.Dim("batch"), **{axis: torch.export.Dim(name, min=low) for axis, name, low in dims}}
    traced = isinstance(model, torch.export.ExportedProgram)
    with quiet():
        program = torch.onnx.export(
            model,
            () if traced else (torch.zeros(2, *SHAPE, dtype=next(model.parameters()).dtype),),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=None if traced else (dynamic,),
            input_names=["input"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    return program.model


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[RiR, torch.export.ExportedProgram]]:
    """Modules traced once for all opsets, by shortcut."""
    models = {shortcut: small(shortcut=shortcut) for shortcut in ("zero-pad", "projection")}
    dims = ({0: torch.export.Dim("batch")},)
    return {
        shortcut: (model, torch.export.export(model, (torch.zeros(2, *SHAPE),), dynamic_shapes=dims))
        for shortcut, model in models.items()
    }


def reference(model: ir.Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """onnx's own evaluator, which knows every opset and float type."""
    return np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, {"input": x})[0])


@pytest.mark.parametrize("opset", range(11, 24))
def test_torchscript_opsets(opset: int, tmp_path: Path) -> None:
    model = small(shortcut="zero-pad" if opset % 2 else "projection")
    graph = torchscript(model, torch.zeros(2, *SHAPE), tmp_path / "traced.onnx", opset)
    assert graph.graph.opset_imports[""] == opset
    counts = ops(hold_against_torch(model, graph, SHAPE))
    assert counts["Conv"] == 4
    assert not counts.keys() & {"Add", "BatchNormalization", "Pad", "Concat", "Slice", "Split"}


@pytest.mark.parametrize("opset", range(18, NEWEST + 1))
def test_dynamo_opsets(opset: int, programs: dict[str, tuple[RiR, torch.export.ExportedProgram]]) -> None:
    model, program = programs["zero-pad" if opset % 2 else "projection"]
    graph = dynamo(program, opset)
    # It silently writes another opset than it was asked for where it cannot write that one.
    assert graph.graph.opset_imports[""] == opset
    result = fold(graph)
    x = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    assert np.abs(reference(result.model, x) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert ops(result.model) == {"Conv": 4, "Relu": 3, **{op: 1 for op in ops(graph) if op not in FOLDED}}


@pytest.mark.parametrize("shortcut", ["zero-pad", "projection"])
def test_batch_norm_that_the_exporter_left(shortcut: str, tmp_path: Path) -> None:
    model = small(shortcut=shortcut)
    options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    graph = torchscript(model, torch.zeros(2, *SHAPE), tmp_path / "traced.onnx", 17, **options)
    assert ops(graph)["BatchNormalization"] == 7
    assert ops(hold_against_torch(model, graph, SHAPE))["Conv"] == 4


@pytest.mark.parametrize("shortcut", ["zero-pad", "projection"])
def test_dynamic_height_and_width_from_torchscript(shortcut: str, tmp_path: Path) -> None:
    model = small(shortcut=shortcut)
    axes = {2: "height", 3: "width"}
    graph = torchscript(model, torch.zeros(2, *SHAPE), tmp_path / "traced.onnx", 17, dynamic=axes)
    for shape in ((3, 16, 16), (3, 9, 14)):
        assert ops(hold_against_torch(model, graph, shape))["Conv"] == 4


def test_dynamic_height_and_width_from_dynamo() -> None:
    model = small(shortcut="projection")
    graph = dynamo(model, 20, (2, "height", 8), (3, "width", 8))
    for shape in ((3, 16, 16), (3, 9, 14)):
        assert ops(hold_against_torch(model, graph, shape))["Conv"] == 4


@pytest.mark.parametrize(
    ("exporter", "dtype", "tolerance"),
    [
        ("torchscript", torch.float16, 1e-2),
        ("torchscript", torch.float64, 1e-12),
        ("dynamo", torch.float16, 1e-2),
    ],
)
def test_other_float_types(exporter: str, dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    model = small(shortcut="projection").to(dtype)
    example = torch.zeros(2, *SHAPE, dtype=dtype)
    traced = exporter == "torchscript"
    graph = torchscript(model, example, tmp_path / "traced.onnx", 17) if traced else dynamo(model, 18)
    result = fold(graph)
    assert ops(result.model)["Conv"] == 4
    types = {node.inputs[1].dtype for node in result.model.graph if node.op_type == "Conv"}  # type: ignore[union-attr]
    assert types == {result.model.graph.inputs[0].dtype}
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        expected = model.double()(x.double()).numpy()
    found = reference(result.model, x.numpy()).astype(np.float64)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
