"""Cross-layer equalisation: a factor a channel moves from the convolutions that write it to those that read it.

With s > 0: W2 relu(W1 x + b1) = (W2 / s) relu((s W1) x + s b1), a channel at a time (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721). All factors are powers of two (which
ones, `exponents` says): scaling by them is exact in floating point, so the network computes the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import InputError
from rir_deploy.quantize.channels import channel_groups
from rir_deploy.strict_data import parse_json

Floats = NDArray[np.float64]

# On a node: its output is 2**e times what it was, one e a channel.
EQUALIZED_KEY = "rir_deploy.equalized"


def equalize(graph: ir.Graph, exponents: Mapping[str, Sequence[int]]) -> None:
    """Scale the weights of ``graph`` in place, and note on every node by how much its output is scaled.

    Args:
        exponents: [channels] powers of two, by the name of a group's first tensor. A group that is missing stays.

    Raises:
        InputError: the graph has no such group of channels: the exponents are another model's.
    """
    groups = {str(group.values[0].name): group for group in channel_groups(graph)} if exponents else {}
    weights: dict[ir.Value, Floats] = {}
    for name, found in exponents.items():
        if name not in groups or groups[name].size != len(found):
            raise InputError(f"the model has no {len(found)} channels '{name}' to equalise; calibrate this model")
        factors = np.exp2(np.array(found, dtype=np.float64))
        for node in groups[name].writers:
            _scale_rows(node, factors, weights)
        for node in groups[name].readers:
            _scale_columns(node, 1.0 / factors, weights)
        for value in groups[name].values:
            producer = value.producer()
            assert producer is not None
            producer.metadata_props[EQUALIZED_KEY] = json.dumps(list(found))
    for value, array in weights.items():
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def exponents_of(value: ir.Value) -> NDArray[np.int64] | None:
    """By how much `equalize` has scaled the channels of a tensor; None where it has not.

    Raises:
        InputError: the record is malformed.
    """
    producer = value.producer()
    text = None if producer is None else producer.metadata_props.get(EQUALIZED_KEY)
    try:
        return None if text is None else np.array(parse_json(text), dtype=np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"the record of the scaled channels of '{value.name}' is malformed ({error!r}); quantise again"
        ) from error


def _scale_rows(node: ir.Node, factors: Floats, weights: dict[ir.Value, Floats]) -> None:
    for value in node.inputs[1:]:
        if value is not None:
            array = _array(value, weights)
            axis = 1 if value is node.inputs[1] and not _rows_first(node) else 0
            weights[value] = array * factors.reshape([-1 if i == axis else 1 for i in range(array.ndim)])


def _scale_columns(node: ir.Node, factors: Floats, weights: dict[ir.Value, Floats]) -> None:
    value = node.inputs[1]
    assert value is not None
    array = _array(value, weights)
    if node.op_type == "Conv":
        columns = conv_columns(factors, array.shape, groups_of(node))
        weights[value] = array * columns.reshape(*columns.shape, *[1] * (array.ndim - 2))
    else:
        weights[value] = array * (factors if _rows_first(node) else factors[:, None])


def conv_columns(factors: Floats, shape: tuple[int, ...], groups: int) -> Floats:
    """[channels] spread to the [rows, columns] of a convolution's weight: a row reads the channels of its group."""
    return np.repeat(factors.reshape(groups, shape[1]), shape[0] // groups, axis=0)


def rows_of(node: ir.Node) -> Floats:
    """The weight of a convolution or product as [rows, columns, kernel]."""
    value = node.inputs[1]
    assert value is not None
    array = _array(value, {})
    rows = array if _rows_first(node) else array.T
    return rows.reshape(*rows.shape[:2], -1)


def groups_of(node: ir.Node) -> int:
    return node.attributes["group"].as_int() if "group" in node.attributes else 1


def _rows_first(node: ir.Node) -> bool:
    """Whether axis 0 of the weight counts outputs."""
    return node.op_type == "Conv" or ("transB" in node.attributes and node.attributes["transB"].as_int() == 1)


def _array(value: ir.Value, weights: Mapping[ir.Value, Floats]) -> Floats:
    if value in weights:
        return weights[value]
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)
