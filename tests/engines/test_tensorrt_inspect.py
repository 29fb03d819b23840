from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rir_deploy.engines.tensorrt_inspect import read_build_log, read_inspector, summarize


def inspected(text: str) -> dict[str, object]:
    return summarize(read_inspector(text), "inspector")


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
    assert inspected(json.dumps({"Layers": layers, "Bindings": ["x", "y"]})) == {
        "inspected": True,
        "source": "inspector",
        "layers": 6,
        "conv": {"f16": 1, "i8": 2},
        "leaves_int8": 1,
        "leaves_int8_first": ["middle"],
        "reformats": 1,
        "casts": 1,
    }


def test_a_silent_fall_back_to_fp32_shows() -> None:
    layers = [layer(f"c{i}", "CaskConvolution", tensor_10("float"), tensor_10("float")) for i in range(3)]
    assert inspected(json.dumps({"Layers": layers}))["conv"] == {"f32": 3}


def test_other_float_types_are_told_apart() -> None:
    for text, kind in (("BF16", "bf16"), ("BFloat16", "bf16"), ("FP8", "f8"), ("N/A due to dynamic shapes", "unknown")):
        described = {"Format/Datatype": f"Row major linear {text} format"}
        summary = inspected(json.dumps({"Layers": [layer("c", "Convolution", described, described)]}))
        assert summary["conv"] == {kind: 1}


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", '{"Layers": 3}'])
def test_anything_else_is_not_inspected(text: str) -> None:
    assert inspected(text)["inspected"] is False


def test_layer_names_alone_count_for_nothing() -> None:
    assert inspected(json.dumps({"Layers": ["conv + relu"]}))["conv"] == {}


LOG = """Layers:
Name: __shape_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata:
Name: quantise, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [-1,3,8,8], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: k, Dimensions: [1], Datatype: Half, Format: (Linear) }], Outputs: [ { Name: a, Dimensions: [-1,4,8,8], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: q0]
Name: conv, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [-1,4,8,8], Datatype: Int8, Format: (NHWC) }], Constants: [ { Name: w, Datatype: Int8 }, { Name: s, Datatype: Float }], Outputs: [ { Name: b, Datatype: Float, Format: (NHWC) }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: c0]
Name: half, LayerType: correlation, Inputs: [ { Name: b, Datatype: Half }], Constants: [], Outputs: [ { Name: c, Datatype: Half }], TacticName: t, StreamId: 0, Metadata:

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float
"""  # noqa: E501  # as RTX 1.7.1 writes it


def test_the_builders_own_list_is_read() -> None:
    layers = read_build_log(LOG)
    assert layers is not None
    assert [layer["Name"] for layer in layers] == ["__shape_0", "quantise", "conv", "half"]
    assert summarize(layers, "build log") == {
        "inspected": True,
        "source": "build log",
        "layers": 4,
        "conv": {"f16": 1, "i8": 1},
        "leaves_int8": 1,
        "leaves_int8_first": ["conv"],
        "reformats": 0,
        "casts": 0,
    }


@pytest.mark.parametrize(
    "text", ["", "Layers:", "Layers:\n", "Layers:\nconv runs in int8", "conv\n" + LOG, LOG.lower()]
)
def test_another_list_is_not_guessed_at(text: str) -> None:
    assert read_build_log(text) is None
    assert summarize(None, "build log") == {"inspected": False, "reason": "the build log gave no layer information"}
