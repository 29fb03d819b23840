from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rir_deploy.engines.tensorrt_inspect import summarize

Tensor = Callable[[str], dict[str, Any]]


def tensor_10(kind: str) -> dict[str, Any]:
    """As the TensorRT 10 manual shows it."""
    text = {
        "int8": "Thirty-two wide channel vectorized row major Int8 format.",
        "half": "Channel major FP16 format where channel % 8 == 0",
        "float": "Row major linear FP32",
    }[kind]
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 64, 8, 8], "Format/Datatype": text}


def tensor_11(kind: str) -> dict[str, Any]:
    """As the guide to TensorRT 11 splits it."""
    name = {"int8": "Int8", "half": "Half", "float": "Float"}[kind]
    return {"Name": "t", "Dimensions": [1, 64, 8, 8], "DataType": name, "Format": "Row major linear format (kLINEAR)"}


def layer(name: str, kind: str, read: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [read], "Outputs": [written]}


@pytest.mark.parametrize(("tensor", "conv"), [(tensor_10, "CaskConvolution"), (tensor_11, "correlation")])
def test_both_schemas_are_read(tensor: Tensor, conv: str) -> None:
    layers = [
        layer("reformat in", "Reformat", tensor("float"), tensor("int8")),
        layer("stem", conv, tensor("int8"), tensor("int8")),
        layer("middle", conv, tensor("int8"), tensor("float")),
        layer("kept", conv, tensor("half"), tensor("half")),
        layer("head", "gemm", tensor("float"), tensor("float")),
        layer("cast", "Cast", tensor("float"), tensor("half")),
    ]
    assert summarize(json.dumps({"Layers": layers, "Bindings": ["x", "y"]})) == {
        "inspected": True,
        "layers": 6,
        "conv": {"f16": 1, "i8": 2},
        "leaves_int8": ["middle"],
        "reformats": 1,
        "casts": 1,
    }


def test_a_silent_fall_back_to_fp32_shows() -> None:
    layers = [layer(f"c{i}", "CaskConvolution", tensor_10("float"), tensor_10("float")) for i in range(3)]
    assert summarize(json.dumps({"Layers": layers}))["conv"] == {"f32": 3}


def test_other_float_types_are_told_apart() -> None:
    for text, kind in (("BF16", "bf16"), ("BFloat16", "bf16"), ("FP8", "f8"), ("N/A due to dynamic shapes", "unknown")):
        described = {"Format/Datatype": f"Row major linear {text} format"}
        summary = summarize(json.dumps({"Layers": [layer("c", "Convolution", described, described)]}))
        assert summary["conv"] == {kind: 1}


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", '{"Layers": 3}'])
def test_anything_else_is_not_inspected(text: str) -> None:
    assert summarize(text)["inspected"] is False


def test_layer_names_alone_count_for_nothing() -> None:
    assert summarize(json.dumps({"Layers": ["conv + relu"]}))["conv"] == {}
