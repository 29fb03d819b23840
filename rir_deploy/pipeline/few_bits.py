"""Weights of fewer than 8 bits: what they are, and which backends take them."""

from __future__ import annotations

import onnx_ir as ir

from rir_deploy.errors import UsageError

# It puts such a weight together when it loads the graph. OpenVINO (2026.4) leaves that to run time, and computes the
# convolution in float; no TensorRT builds one.
BACKENDS = frozenset({"onnxruntime"})
_NARROW = frozenset({ir.DataType.INT4, ir.DataType.UINT4})


def few_bits(model: ir.Model) -> str | None:
    """What to say of a graph that holds such weights; None where it has none."""
    if not any(value.dtype in _NARROW for value in model.graph.initializers.values()):
        return None
    return (
        "the weights are stored in 4 bits and not computed in 4 bits: ONNX Runtime puts them together as INT8 when it "
        "loads the file, so it is small and no faster than INT8"
    )


def check_few_bits(model: ir.Model, bits: int, backend: str) -> None:
    """Refuse to build what the backend would not compute in integers.

    Args:
        model: what is built from; it may hold such weights already.
        bits: what was asked for.

    Raises:
        UsageError: with the way out.
    """
    if (bits < 8 or few_bits(model) is not None) and backend not in BACKENDS:
        raise UsageError(
            f"{backend} does not compute a convolution with 4-bit weights in integers: build with --backend "
            "onnxruntime, or quantise with --weight-bits 8"
        )
