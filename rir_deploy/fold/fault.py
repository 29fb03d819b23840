"""Is it the graph's fault? Asked where a rule fails on what it has read."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def find_fault(model: ir.Model) -> str | None:
    """Why a model that could be read is none after all, by onnx's own strict check of attributes, types and shapes.

    None where that finds nothing.
    """
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except Exception as error:  # onnx raises nearly every built-in error on malformed models
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200].rstrip(".;")
    return None
