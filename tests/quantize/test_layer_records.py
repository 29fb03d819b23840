"""What the metadata of a quantised model says of its layers, held against its graph."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rir_deploy.errors import InputError
from rir_deploy.fold import list_layers
from rir_deploy.quantize import QuantizeOptions, TuneOptions, quantize
from rir_deploy.quantize.layers import LAYERS_KEY, read_layers
from tests.quantize.graphs import calibrate, chain, residual, writer
from tests.quantize.test_few_bits import narrow, network
from tests.quantize.tuning import CPU, tuned

TYPES = {"int8": "int8", "int4": "int4", "fp16": "float16", "fp32": "float32"}


def assert_true(model: ir.Model) -> None:
    found = read_layers(model)
    layers = list_layers(model)
    assert layers
    for layer in layers:
        assert layer.weights == TYPES[found[layer.name].precision], layer.name
        assert (found[layer.name].reason is None) == (found[layer.name].precision in ("int8", "int4"))


@pytest.mark.parametrize(
    "options",
    [
        QuantizeOptions(),
        QuantizeOptions("cpu", keep=("n5",)),
        QuantizeOptions(keep=("n2", "n6")),
        QuantizeOptions(rest="fp16", keep=("n2",)),
    ],
)
def test_it_is_what_the_graph_holds(options: QuantizeOptions) -> None:
    model = quantize(residual(), calibrate(residual()), options).model
    assert_true(model)
    reasons = {name: record.reason for name, record in read_layers(model).items() if record.reason is not None}
    assert list(reasons) == [pattern for pattern in ("n2", "n5", "n6") if pattern in options.keep]
    assert all("asked for" in reason for reason in reasons.values())


def test_of_four_bits_too() -> None:
    _, small = narrow(network(head="products"))
    assert_true(small)
    assert [record.precision for record in read_layers(small).values()] == ["int8", *["int4"] * 5, "int8"]
    stored = {layer.name: layer for layer in list_layers(small)}
    for node in (node for node in network().graph if node.name == "n2"):
        size = node.inputs[1].const_value.size  # type: ignore[union-attr]
        assert size // 2 < stored["n2"].weight_bytes < size


def test_a_layer_that_fp16_would_break_is_fp32_and_says_so() -> None:
    w = writer()
    x = w.relu(w.conv(w.input(3), 8, bias=True))
    huge = w.op("Conv", [x, w.constant(1e6 * w.rng.standard_normal((8, 8, 1, 1)))], 8, kernel_shape=[1, 1])
    model = w.model(w.conv(huge, 5))
    result = quantize(model, calibrate(model), QuantizeOptions(rest="fp16", keep=("n2",))).model
    record = read_layers(result)["n2"]
    assert record.precision == "fp32"
    assert "FP16" in str(record.reason)
    assert read_layers(result)["n3"].precision == "int8"


def test_it_is_in_the_file_of_a_tuned_model() -> None:
    found = tuned(chain(), TuneOptions("minmax"))
    assert_true(quantize(chain(), found.table, CPU, found.rounded).model)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"n0": 1}', '{"n0": {"precision": "int2"}}', '{"n0": {"precision": "int8", "reason": 3}}']
)
def test_a_record_that_was_tampered_with_is_refused(text: str) -> None:
    model = quantize(chain(), calibrate(chain())).model
    model.metadata_props[LAYERS_KEY] = text
    with pytest.raises(InputError, match="malformed"):
        read_layers(model)


def test_a_malformed_record_of_the_fold_is_refused() -> None:
    for text in ("{", "3", "[3]", '[{"a": 1}]'):
        model = chain()
        next(iter(model.graph)).metadata_props["rir_deploy.members"] = text
        with pytest.raises(InputError, match=r"'n0' is malformed .*; fold the model again"):
            quantize(model, calibrate(model), QuantizeOptions(keep=("n0",)))
