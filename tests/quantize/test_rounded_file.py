"""Rounded weights on disk: equal bytes for equal weights, and nothing but those that the table names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from rir_deploy.errors import InputError
from rir_deploy.quantize import QuantizeOptions
from rir_deploy.quantize.rounded_file import from_bytes, to_bytes
from rir_deploy.quantize.weights import RoundedWeight
from tests.quantize.tuning import CPU, TENSORRT


def weights(seed: int = 0) -> dict[str, RoundedWeight]:
    rng = np.random.default_rng(seed)
    shapes = {"conv_0": (4, 3, 3, 3), "block|r": (8, 4, 1, 1), "logits": (8, 5)}
    made = {}
    for name, shape in shapes.items():
        rows = shape[0]
        bias = rng.standard_normal(rows).astype(np.float32) if name != "logits" else None
        wide = rng.integers(0, 4, rows) if name == "block|r" else None
        integers = rng.integers(-8, 8, shape).astype(np.int8)
        made[name] = RoundedWeight(integers, rng.random(rows).astype(np.float32), bias, wide)
    return made


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DATA = to_bytes(weights(), CPU)


def test_it_reads_back_exactly() -> None:
    again = from_bytes(DATA, sha256(DATA), CPU)
    assert again.keys() == weights().keys()
    for name, weight in weights().items():
        for part, array in vars(weight).items():
            other = getattr(again[name], part)
            assert (array is None) == (other is None)
            assert array is None or (array.dtype == other.dtype and np.array_equal(array, other)), (name, part)


def test_equal_weights_give_equal_bytes_and_others_others() -> None:
    shuffled = dict(reversed(weights().items()))
    assert to_bytes(shuffled, CPU) == DATA
    changed = weights()
    changed["conv_0"].integers[0, 0, 0, 0] += 1
    assert to_bytes(changed, CPU) != DATA


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, flip: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= flip
    with pytest.raises(InputError, match="not those that the range table was made with"):
        from_bytes(bytes(changed), sha256(DATA), CPU)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(DATA)))
def test_whoever_forges_the_hash_too_gets_a_refusal_or_weights(edits: list[tuple[int, int]], end: int) -> None:
    """Whether those are a layer's is asked by `check_weight`, once the layer is known."""
    changed = bytearray(DATA)
    for place, value in edits:
        changed[place % 600] = value  # the header, mostly
    forged = bytes(changed[:end] if end % 3 == 0 else changed)
    try:
        read = from_bytes(forged, sha256(forged), CPU)
    except InputError:
        return
    assert all(isinstance(weight, RoundedWeight) and weight.integers.dtype == np.int8 for weight in read.values())


def forged(**tensors: np.ndarray) -> bytes:
    metadata = {"rir_deploy.rounded": json.dumps({"flavour": "cpu", "rest": "fp32", "reduced_range": False})}
    return bytes(save({name.replace("__", "|"): array for name, array in tensors.items()}, metadata=metadata))


INTEGERS, SCALE = np.zeros((2, 2), np.int8), np.ones(2, np.float32)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 64,
        DATA[:-1],
        bytes(save(load(DATA))),  # no record of what it was made for
        forged(a__integers=INTEGERS),  # no scale
        forged(a__scale=SCALE),
        forged(a__integers=INTEGERS.astype(np.int16), a__scale=SCALE),
        forged(a__integers=INTEGERS, a__scale=SCALE.astype(np.float64)),
        forged(a__integers=INTEGERS, a__scale=SCALE, a__other=SCALE),
        forged(integers=INTEGERS, scale=SCALE, a__bar__scale=SCALE),
    ],
)
def test_malformed_files_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="malformed"):
        from_bytes(data, sha256(data), CPU)


@pytest.mark.parametrize("other", [TENSORRT, replace(CPU, reduced_range=True), QuantizeOptions(rest="fp16")])
def test_weights_of_other_options_are_refused(other: QuantizeOptions) -> None:
    with pytest.raises(InputError, match=r"made for (no )?--.* was asked for; .*calibrate again"):
        from_bytes(DATA, sha256(DATA), other)
    # What stays in float may differ: the weights are there for all layers.
    assert from_bytes(DATA, sha256(DATA), replace(CPU, keep=("conv",))).keys() == weights().keys()
