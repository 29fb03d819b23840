"""The two names of ONNX's own operator domain: "" and "ai.onnx" are the same."""

from __future__ import annotations

import itertools

import onnx_ir as ir

LONG_NAME = "ai.onnx"


def use_short_domain(model: ir.Model) -> bool:
    """Write "" for "ai.onnx" everywhere in ``model``, in place; returns whether anything was changed.

    Where a model imports both, the version that it gives for "" counts.
    """
    functions = list(model.functions.values())
    imports = [model.graph.opset_imports, *(function.opset_imports for function in functions)]
    nodes = itertools.chain(model.graph.all_nodes(), *(function.all_nodes() for function in functions))
    changed = False
    for versions in imports:
        if LONG_NAME in versions:
            version = versions.pop(LONG_NAME)
            versions.setdefault("", version)
            changed = True
    for node in nodes:
        if node.domain == LONG_NAME:  # the graph library does this by itself, its older versions do not
            node.domain = ""
            changed = True
    return changed
