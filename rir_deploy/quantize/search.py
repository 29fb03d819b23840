"""Which layers to leave in float: ranked by the damage that quantising each alone does, and as few as will do."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rir_deploy.errors import GateError


@dataclass(frozen=True)
class LayerDamage:
    """What quantising one layer alone does to the output.

    Attributes:
        node: the ONNX node.
        members: tensors of the unfolded graph that it computes; empty in a graph that was not folded.
        sqnr_db: of the outputs, the layer quantised and all others in float; None where it changes nothing.
        block, stream: where in the network it is, "layers.3" and "residual"; None where that is not known or it is in
            both streams.
        precision: that the layer was given in the end (`layers`); None before that is decided.
    """

    node: str
    members: tuple[str, ...]
    sqnr_db: float | None
    block: str | None = None
    stream: str | None = None
    precision: str | None = None


def sqnr_db(signal: float, noise: float) -> float:
    """10 log10 of their ratio. Noise that is not a number counts as the largest there is: nothing is worse."""
    bounded = min(max(noise, 1e-300), sys.float_info.max) if noise == noise else sys.float_info.max
    return 10.0 * (math.log10(max(signal, 1e-300)) - math.log10(bounded))


def rank(layers: Iterable[tuple[str, tuple[str, ...]]], damage: Callable[[str], float | None]) -> list[LayerDamage]:
    """Every layer (node and members) with its damage, the worst first; ``damage`` is called once a layer."""
    found = [LayerDamage(node, members, damage(node)) for node, members in layers]
    return sorted(found, key=lambda layer: float("inf") if layer.sqnr_db is None else layer.sqnr_db)


def fewest_kept(ranking: Sequence[LayerDamage], drop: Callable[[tuple[str, ...]], float], max_drop: float) -> int:
    """How many of the ranking, from its top, have to stay in float to keep within the budget.

    By bisection: ``drop`` is called about log2(layers) times, so that the whole search, ranking included, is linear in
    the number of layers. It takes the drop to shrink as more layers are kept; the answer is within the budget even
    where it does not.

    Args:
        drop: loss of top-1 in points, with the named nodes kept.
        max_drop: the largest loss allowed, in points.

    Raises:
        GateError: not even all of them suffice.
    """
    nodes = tuple(layer.node for layer in ranking)
    least = drop(())
    if least <= max_drop:
        return 0
    low, high = 0, len(nodes) - 1  # all kept would be no quantisation at all
    if high > 0:
        least = drop(nodes[:high])
    if least > max_drop:
        raise GateError(
            f"a drop of {max_drop:.2f} points cannot be kept: with one layer of {len(nodes)} in INT8 it is "
            f"{least:.2f}; allow more or stay with FP16"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if drop(nodes[:middle]) <= max_drop:
            high = middle
        else:
            low = middle
    return high
