"""Rounded weights on disk: a safetensors file, bound to its range table by the table's ``weights_sha256``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rir_deploy.errors import InputError
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.weights import RoundedWeight
from rir_deploy.strict_data import parse_json

_KEY = "rir_deploy.rounded"
# Tensors of a layer, by the layer's name, a bar and one of these.
_PARTS = {"integers": np.int8, "scale": np.float32, "bias": np.float32, "wide": np.int64}


def to_bytes(rounded: Mapping[str, RoundedWeight], options: QuantizeOptions) -> bytes:
    """Equal weights give equal bytes."""
    tensors = {
        f"{name}|{part}": np.ascontiguousarray(array)
        for name, weight in rounded.items()
        for part in _PARTS
        if (array := getattr(weight, part)) is not None
    }
    return bytes(save(tensors, metadata={_KEY: json.dumps(_made_for(options), sort_keys=True)}))


def from_bytes(data: bytes, sha256: str, options: QuantizeOptions) -> dict[str, RoundedWeight]:
    """Read what `to_bytes` wrote.

    Raises:
        InputError: the bytes are not those that ``sha256`` names, are malformed, or were made for other options.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError("the rounded weights are not those that the range table was made with; calibrate again")
    try:
        made_for = _metadata(data)
        tensors = load(data)
        weights: dict[str, dict[str, Any]] = {}
        for key, array in tensors.items():
            name, _, part = key.rpartition("|")
            if array.dtype != _PARTS[part]:
                raise ValueError(f"'{key}' is {array.dtype}")
            weights.setdefault(name, {"bias": None})[part] = array
        rounded = {name: RoundedWeight(**parts) for name, parts in weights.items()}
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"the rounded weights are malformed ({error!r}); calibrate again") from error
    if made_for != _made_for(options):
        given = made_for if isinstance(made_for, dict) else {}
        wanted = _made_for(options)
        wrong = [key for key in wanted if given.get(key) != wanted[key]]
        were, asked = (" ".join(_option(key, made.get(key)) for key in wrong) for made in (given, wanted))
        raise InputError(
            f"the rounded weights were made for {were}, and {asked} was asked for; ask for the same, or calibrate again"
        )
    return rounded


def holds_few_bits(data: bytes) -> bool:
    """Whether any of the weights that `to_bytes` wrote has fewer than 8 bits; False for bytes of another kind."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return any(str(name).endswith("|wide") for name in header)
    except (ValueError, TypeError, RecursionError):
        return False  # `from_bytes` says how they are malformed


def _option(key: str, value: object) -> str:
    """As it is asked for on the command line."""
    if key == "reduced_range":
        return "--reduced-range" if value else "no --reduced-range"
    return f"--{'qdq' if key == 'flavour' else key} {value}"


def _made_for(options: QuantizeOptions) -> dict[str, object]:
    return {"flavour": options.flavour, "rest": options.rest, "reduced_range": options.reduced_range}


def _metadata(data: bytes) -> object:
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return parse_json(header["__metadata__"][_KEY])
