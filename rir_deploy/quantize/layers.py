"""The precision of every layer, in the metadata of the quantised model: what the graph shows, and why it is so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import onnx_ir as ir

from rir_deploy.errors import InputError
from rir_deploy.graph.prepare import label
from rir_deploy.precision import KeptNode
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.select import Selection
from rir_deploy.quantize.weights import RoundedWeight
from rir_deploy.strict_data import parse_json

LAYERS_KEY = "rir_deploy.layers"
LayerPrecision = Literal["int8", "int4", "fp16", "fp32"]


@dataclass(frozen=True)
class LayerRecord:
    """``precision`` of the weights as they are stored; ``reason`` why a layer is not quantised, None where it is."""

    precision: LayerPrecision
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(LayerPrecision) or not isinstance(self.reason, str | None):
            raise ValueError(f"{self.precision!r} because of {self.reason!r} is no precision of a layer")


def write_layers(
    model: ir.Model,
    selection: Selection,
    kept: Iterable[KeptNode],
    options: QuantizeOptions,
    rounded: Mapping[str, RoundedWeight],
) -> None:
    """Note the precision of every layer of ``model``.

    Args:
        kept: nodes that are not quantised, and those that the cast to FP16 left in FP32.
    """
    found: dict[str, LayerRecord] = {}
    for layer in selection.nodes:
        weight = rounded.get(str(layer.node.outputs[0].name))
        found[label(layer.node)] = LayerRecord("int8" if weight is None or weight.wide is None else "int4")
    quantized, kept_layers = set(found), {label(node) for node in selection.kept}
    for node in kept:  # a layer that the cast leaves in FP32 is named a second time
        half = options.rest == "fp16" and node.node in kept_layers and node.node not in found
        if node.node not in quantized:
            found[node.node] = LayerRecord("fp16" if half else "fp32", node.reason)
    model.metadata_props[LAYERS_KEY] = json.dumps({name: asdict(record) for name, record in found.items()})


def read_layers(model: ir.Model) -> dict[str, LayerRecord]:
    """By node; empty where nothing was noted.

    Raises:
        InputError: the record is malformed.
    """
    text = model.metadata_props.get(LAYERS_KEY)
    try:
        return {} if text is None else {str(name): LayerRecord(**record) for name, record in parse_json(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"the record of the layers' precision is malformed ({error!r}); quantise again") from error
