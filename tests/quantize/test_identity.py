"""The identity of a folded block apart from its kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.fold import fold
from rir_deploy.quantize import TuneOptions, quantize
from rir_deploy.quantize.identity import split_identities
from rir_deploy.quantize.quantize import canonical
from tests.quantize.graphs import batches, chain, residual, session, two_streams
from tests.quantize.tuning import CPU, TENSORRT, tuned


def counts(model: ir.Model) -> tuple[int, int]:
    ops = [node.op_type for node in model.graph]
    return ops.count("Conv"), ops.count("Add")


@pytest.mark.parametrize(("make", "blocks"), [(residual, 1), (two_streams, 1)])
def test_folded_blocks_are_split_and_compute_the_same(make: object, blocks: int) -> None:
    folded = canonical(fold(make()).model)  # type: ignore[operator]
    convs, adds = counts(folded)
    split = folded.clone()
    assert split_identities(split.graph) == blocks
    assert counts(split) == (convs + blocks, adds + blocks)
    for batch in batches():
        before, after = (session(model).run(None, {"x": batch})[0] for model in (folded, split))
        assert np.allclose(before, after, rtol=0, atol=1e-6 * np.abs(before).max())


def test_the_tap_leaves_the_kernel_whole() -> None:
    folded = canonical(fold(residual()).model)
    weights = {node.name: node.inputs[1].const_value.numpy() for node in folded.graph if node.op_type == "Conv"}
    split_identities(folded.graph)
    identity = next(node for node in folded.graph if node.name and node.name.endswith("/identity"))
    kernel = next(node for node in folded.graph if f"{node.name}/identity" == identity.name)
    taps = identity.inputs[1].const_value.numpy().ravel()
    rest = kernel.inputs[1].const_value.numpy()
    middle = np.diagonal(rest[:, :, 1, 1])
    assert np.all(middle[taps != 0] == 0)
    put_back = rest.copy()
    put_back[np.arange(len(taps)), np.arange(len(taps)), 1, 1] += taps
    assert np.array_equal(put_back, weights[kernel.name])


def test_a_network_without_identities_is_left_alone() -> None:
    model = canonical(chain())
    assert split_identities(model.graph) == 0
    assert counts(model) == counts(canonical(chain()))


@pytest.mark.parametrize("quantization", [CPU, TENSORRT], ids=["cpu", "tensorrt"])
def test_the_table_remembers_the_split(quantization: object) -> None:
    model = fold(residual()).model
    found = tuned(model, TuneOptions("minmax", split_identity=True), quantization)  # type: ignore[arg-type]
    assert found.table.split_identity
    result = quantize(model, found.table, quantization, found.rounded)  # type: ignore[arg-type]
    assert any(name.endswith("/identity") for name in result.quantized)
    whole = quantize(model, tuned(model).table, quantization).model  # type: ignore[arg-type]
    assert counts(result.model)[1] == counts(whole)[1] + 1
