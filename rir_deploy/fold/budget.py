"""What to leave unfolded so that no weight is stored more often than before.

A weight that several nodes share is stored once, but each of its folded copies would be stored for itself, scaled or
joined in its own way. The fold first tries without restraint, since batch norms and biases that vanish often pay for
the copies; where they do not, it gives up what costs most and saves least:

    1. constants that only save nodes (masks, the four vectors of a batch norm);
    2. the shared weights, largest first, until the rest fits: the nodes that read them stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir


@dataclass(frozen=True)
class Plan:
    """``lean``: see `Lowering`. ``untouched``: names of weights whose readers stay as they are."""

    lean: bool = False
    untouched: frozenset[str] = frozenset()


def tighter(plan: Plan, model: ir.Model, excess_bytes: int) -> Plan | None:
    """The next plan to try where ``plan`` stores ``excess_bytes`` too many; None where there is none left."""
    if not plan.lean:
        return replace(plan, lean=True)
    copies = {name: size for name, size in _copies(model).items() if name not in plan.untouched}
    chosen, saved = set(plan.untouched), 0
    for name, size in sorted(copies.items(), key=lambda item: (-item[1], item[0])):
        if saved >= excess_bytes:
            break
        chosen.add(name)
        saved += size
    return replace(plan, untouched=frozenset(chosen)) if copies else None


def _copies(model: ir.Model) -> dict[str, int]:
    """The bytes by which each shared weight would grow, were it stored once for every node that reads it."""
    sizes = {}
    for name, value in model.graph.initializers.items():
        readers, tensor = {node for node, _ in value.uses()}, value.const_value
        if len(readers) > 1 and tensor is not None and tensor.dtype.is_floating_point():
            sizes[name] = tensor.nbytes * (len(readers) - 1)
    return sizes
