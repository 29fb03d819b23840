"""Both of PyTorch's exporters trace every kind of network, with a batch size that stays free."""

from __future__ import annotations

import io
import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.models.networks import VARIANTS, config_of, images, network

# The dynamo exporter takes a second or two each: one network for each kind of graph.
DYNAMO = ["zero-pad", "resnet-init-outer", "mlp", "stream-begins"]


def torchscript(model: torch.nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    buffer = io.BytesIO()
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    options = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        torch.onnx.export(model, (x,), buffer, dynamo=False, **options)
    return onnx.load_from_string(buffer.getvalue())


def dynamo(model: torch.nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (x,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["image"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def check(model: torch.nn.Module, graph: onnx.ModelProto, x: torch.Tensor) -> None:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        found = session.run(None, {"image": x[:count].numpy()})[0]
        with torch.no_grad():
            expected = model(x[:count]).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_torchscript(variant: str) -> None:
    config = config_of(variant)
    model = network(config)
    check(model, torchscript(model, images(config, 2)), images(config, 3))


@pytest.mark.parametrize("variant", DYNAMO)
def test_dynamo(variant: str) -> None:
    config = config_of(variant)
    model = network(config)
    check(model, dynamo(model, images(config, 2)), images(config, 3))


def test_the_global_pool_is_one_node() -> None:
    model = network(config_of("plain"))
    graph = torchscript(model, images(model.config, 2)).graph
    assert [node.op_type for node in graph.node][-2:] == ["Conv", "ReduceMean"]


def test_resnet_init_exports_one_conv_a_layer() -> None:
    config = config_of("resnet-init")
    model = network(config)
    counts = Counter(node.op_type for node in torchscript(model, images(config, 2)).graph.node)
    assert counts["Conv"] == 1 + 4 + 1
    assert counts["Add"] == 0
