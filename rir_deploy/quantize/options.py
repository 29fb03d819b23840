"""What may be asked of the quantiser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from rir_deploy.errors import UsageError, unknown_name
from rir_deploy.precision import KeptNode

Flavour = Literal["tensorrt", "cpu"]
Rest = Literal["fp32", "fp16"]
# A scale a channel came with opset 13, FP16 scales with opset 19.
_PER_CHANNEL_OPSET, _FP16_SCALES_OPSET, _INT4_OPSET = 13, 19, 21


def default_rest(flavour: str) -> Rest:
    """What the rest of a graph computes in unless it is said: what is fastest where the flavour runs."""
    return "fp16" if flavour == "tensorrt" else "fp32"


@dataclass(frozen=True)
class QuantizeOptions:
    """How a graph is quantised.

    Attributes:
        flavour: "tensorrt": symmetric int8, float bias; "cpu": uint8 activations, int32 bias (`placement` says where).
        reduced_range: 7-bit weights (-64..64), "cpu" only: without VNNI a CPU adds two products uint8 * int8 in
            16 bits, which 2 * 255 * 64 still fits and 2 * 255 * 127 does not.
        keep: regular expressions; a convolution or product with a match in its name, the names of its output and
            weight, or the unfolded tensors in it stays in float.
        rest: type of what is not quantised; "fp16" with "tensorrt" only.
        pinned: nodes that stay in float for a reason of their own.

    Raises:
        UsageError: an unknown flavour or rest, a combination that does not exist, or something in ``keep`` that is not
            a regular expression.
    """

    flavour: Flavour = "tensorrt"
    reduced_range: bool = False
    keep: tuple[str, ...] = ()
    rest: Rest = "fp32"
    pinned: tuple[KeptNode, ...] = ()

    def __post_init__(self) -> None:
        if self.flavour not in get_args(Flavour):
            raise unknown_name("flavour", str(self.flavour), get_args(Flavour))
        if self.rest not in get_args(Rest):
            raise unknown_name("type of the rest", str(self.rest), get_args(Rest))
        if self.flavour != "cpu" and self.reduced_range:
            raise UsageError(
                "a reduced range is for CPUs without VNNI: ask for it with the flavour 'cpu', or not at all"
            )
        if self.flavour == "cpu" and self.rest != "fp32":
            raise UsageError("CPUs compute the rest of a 'cpu' graph in FP32: ask for rest 'fp32'")
        for pattern in self.keep:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise UsageError(f"keep holds {pattern!r}, which is not a regular expression: {error}") from error

    @property
    def weight_limit(self) -> int:
        """The largest absolute value of a quantised weight."""
        return 64 if self.reduced_range else 127


def quantized_opset(options: QuantizeOptions, *, few_bits: bool) -> int:
    """The least opset that has all that a quantised graph is written in; ``few_bits``: it has 4-bit weights."""
    if few_bits:
        return _INT4_OPSET
    return _FP16_SCALES_OPSET if options.rest == "fp16" else _PER_CHANNEL_OPSET
