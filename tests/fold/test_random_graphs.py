"""Properties of the fold over random graphs of no family: it must be right where it was never meant to be useful."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from rir_deploy.fold import fold
from tests.fold import random_open
from tests.fold.graphs import relative_error
from tests.fold.random_graphs import build


def _bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_same_function_no_more_work_idempotent_deterministic(first: int) -> None:
    for seed in range(first, first + 10):
        model = build(seed)
        result = fold(model)
        assert relative_error(model, result.model) < 1e-9, seed
        assert result.after.macs <= result.before.macs, seed
        assert result.after.weight_bytes <= result.before.weight_bytes, seed
        onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
        again = fold(result.model)
        assert not again.modified, seed
        assert _bytes(again.model) == _bytes(result.model) == _bytes(fold(model).model), seed


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_nested_graphs_computed_constants_and_open_sizes(first: int) -> None:
    for seed in range(first, first + 10):
        graph = random_open.build(seed)
        result = fold(graph.model)
        assert graph.error(result.model) <= random_open.TOLERANCES[graph.dtype], seed
        assert result.after.macs <= result.before.macs, seed
        onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
        assert not fold(result.model).modified, seed
