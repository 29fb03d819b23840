"""Quantisation as one stage: an FP32 model and a range table in, the Q/DQ model and what was kept out of it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from rir_deploy.errors import InputError
from rir_deploy.graph.opset import raise_opset
from rir_deploy.graph.prepare import label, prepare
from rir_deploy.precision import KeptNode, to_fp16
from rir_deploy.quantize.absorb import absorb_biases, absorb_normalizations
from rir_deploy.quantize.equalize import equalize
from rir_deploy.quantize.identity import split_identities
from rir_deploy.quantize.layers import write_layers
from rir_deploy.quantize.options import QuantizeOptions, quantized_opset
from rir_deploy.quantize.placement import place
from rir_deploy.quantize.qdq import QdqWriter
from rir_deploy.quantize.select import select
from rir_deploy.quantize.table import RangeTable
from rir_deploy.quantize.weights import RoundedWeight
from rir_deploy.tensorrt_rules import check_tensorrt_graph


@dataclass(frozen=True)
class QuantizeResult:
    """``model`` is a new model.

    Attributes:
        quantized: names of the nodes that compute on integers, in graph order.
        kept: nodes with weights that do not, and nodes that stay FP32 where the rest is FP16.
        asked: those of the kept that the options or the table ask for.
        tensors: the activations that a Q/DQ pair rounds.
    """

    model: ir.Model
    quantized: tuple[str, ...]
    kept: tuple[KeptNode, ...]
    asked: tuple[KeptNode, ...]
    tensors: tuple[str, ...]


def quantize(
    model: ir.Model,
    table: RangeTable,
    options: QuantizeOptions = QuantizeOptions(),
    rounded: Mapping[str, RoundedWeight] | None = None,
) -> QuantizeResult:
    """Put Q/DQ pairs and integer weights into a model.

    Args:
        model: an FP32 model, folded or not; it is not changed.
        table: ranges of its tensors, and nodes to keep beside those of the options. The caller has bound it to this
            model with `RangeTable.check`.
        rounded: weights by the name of the layer's output; those of other layers are rounded to the nearest integer.

    Returns:
        A model with the same inputs and outputs, and the precision of every layer in its metadata (`layers`); the same
        arguments give the same bytes.

    Raises:
        InputError: the model is quantised already, nothing in it can be, or the table lacks a tensor.
        UsageError: a pattern of ``options.keep`` matches nothing, or they leave nothing to quantise.
    """
    quantized = canonical(model)
    if table.split_identity:
        split_identities(quantized.graph)
    equalize(quantized.graph, table.exponents)
    raise_opset(quantized, quantized_opset(options, few_bits=_has_few_bits(rounded or {})))
    graph = quantized.graph
    selection = select(graph, table, options.keep, options.pinned)
    placement = place(graph, selection, options.flavour)
    tensors = tuple(str(value.name) for value in placement.tensors)
    names = tuple(label(found.node) for found in selection.nodes)
    kept = tuple(KeptNode(label(node), reason) for node, reason in selection.kept.items())
    QdqWriter(graph, table, options, rounded).write(selection, placement)
    if options.rest == "fp16":
        cast = to_fp16(quantized, ranges=table.max_abs())
        quantized, kept = cast.model, kept + cast.kept
    if options.flavour == "tensorrt":
        check_tensorrt_graph(quantized)
    write_layers(quantized, selection, kept, options, rounded or {})
    return QuantizeResult(quantized, names, kept, selection.asked, tensors)


def _has_few_bits(rounded: Mapping[str, RoundedWeight]) -> bool:
    return any(weight.wide is not None for weight in rounded.values())


def canonical(model: ir.Model) -> ir.Model:
    """A copy in the form that is calibrated and quantised: prepared, and with its normalisations and biases absorbed.

    Raises:
        InputError: the model is quantised already.
    """
    copy = prepare(model)
    quantised = next((node for node in copy.graph.all_nodes() if "QuantizeLinear" in node.op_type), None)
    if quantised is not None:
        raise InputError(f"the model is quantised already ('{label(quantised)}'): start from the FP32 model")
    absorb_normalizations(copy.graph)
    absorb_biases(copy.graph)
    return copy
