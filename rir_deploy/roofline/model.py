"""The least time that a network's layers can take on a machine (Williams, Waterman and Patterson, "Roofline", 2009).

    time of a layer  = max(its multiply-adds / the ceiling,  its bytes / the bandwidth)
    time of a network = the sum over its layers

Weights count once a call, activations once in and once out. A layer's activations move at the speed of a copy of their
own size: what one layer writes the next one reads at once, out of a cache if it fits. Its weights are not read again
before all others have been, so they move at the speed of a copy as large as all weights together. Whatever stands
between the layers that multiply (additions, averages, rounding) counts nothing, since it can be fused into them: the
bound is a strict one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rir_deploy.errors import BackendError
from rir_deploy.roofline.ceilings import Ceilings


@dataclass(frozen=True)
class LayerWork:
    """What a layer has to do in one call: multiply-adds, and bytes of weights, of what it reads and what it writes.

    ``node`` is its name in the graph, ``block`` the module it came from, None where the graph does not say;
    ``precision`` ("int8", "fp16", "fp32") is what the graph has it compute in.
    """

    node: str
    block: str | None
    precision: str
    macs: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.input_bytes + self.output_bytes


@dataclass(frozen=True)
class LayerBound:
    """The least time of a layer, and what sets it."""

    work: LayerWork
    compute_ms: float
    memory_ms: float

    @property
    def ceiling_ms(self) -> float:
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound(self) -> Literal["compute", "memory"]:
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


def bound_layers(layers: Sequence[LayerWork], ceilings: Ceilings) -> tuple[LayerBound, ...]:
    """The least time of every layer, each at the best that the machine reached in its precision.

    Raises:
        BackendError: nothing was measured in one of the precisions.
        InputError: no copy was measured.
    """
    weights = sum(layer.weight_bytes for layer in layers)
    bounds = []
    for layer in layers:
        best = ceilings.best(layer.precision)
        if best is None:
            raise BackendError(
                f"nothing here computes in {layer.precision}: the ceiling of '{layer.node}' is not known"
            )
        memory_ns = _memory_ns(layer, weights, ceilings)
        bounds.append(LayerBound(layer, 1e-6 * layer.macs / best.gmac_per_s, 1e-6 * memory_ns))
    return tuple(bounds)


def _memory_ns(layer: LayerWork, weights: int, ceilings: Ceilings) -> float:
    """Bytes over GB/s."""
    moving = layer.input_bytes + layer.output_bytes
    # A copy reads as much as it writes: its working set is the bytes that it moves.
    return layer.weight_bytes / ceilings.bandwidth(weights) + moving / ceilings.bandwidth(moving)
