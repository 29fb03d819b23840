"""The part of a run's record on what the machine could do at most. See `schema`, and `roofline.model` for the bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rir_deploy.report.reader import Amount, Count, Size
from rir_deploy.report.schema_bench import Machine


@dataclass(frozen=True)
class RoofCeiling:
    """The most that a backend reached in a precision: 10^9 multiply-adds a second, on the convolution ``shape``."""

    precision: str
    backend: str
    gmac_per_s: Amount
    shape: str


@dataclass(frozen=True)
class RoofCopy:
    """10^9 bytes read and written a second by copies of that size."""

    working_set_bytes: Size
    gb_per_s: Amount


@dataclass(frozen=True)
class RoofLayer:
    """``ceiling_ms`` is the least that the layer could take; ``measured_ms`` is the runtime's own, None where it does
    not tell the layer apart.
    """

    node: str
    block: str | None
    precision: str
    macs: Count
    bytes: Count
    ceiling_ms: Amount
    measured_ms: Amount | None
    bound: Literal["compute", "memory"]


@dataclass(frozen=True)
class RoofNode:
    """Something else that the runtime computed: a change of layout, the rounding of the input."""

    node: str
    op: str
    measured_ms: Amount


@dataclass(frozen=True)
class RoofEngine:
    """An engine at one batch size; ``share`` is the least time over the median, ``fastest_share`` over the fastest.

    ``rest_ms`` is what the runtime spent on nodes that are no layer, None where it keeps no account.
    """

    engine: str
    backend: str
    precision: str
    batch: Size
    median_ms: Amount
    fastest_ms: Amount | None
    ceiling_ms: Amount
    share: Amount
    fastest_share: Amount | None
    macs: Count
    bytes: Count
    gmac_per_s: Amount
    rest_ms: Amount | None
    layers: tuple[RoofLayer, ...]
    rest: tuple[RoofNode, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roofline:
    """What ``rir-deploy roofline --json`` prints. ``copy_gb_per_s`` is that of the largest copy, which no cache holds;
    ``cached`` counts the ceilings that were known before.
    """

    machine: Machine
    threads: Size
    cached: Count
    ceilings: tuple[RoofCeiling, ...]
    copy_gb_per_s: Amount
    copies: tuple[RoofCopy, ...]
    engines: tuple[RoofEngine, ...]
    notes: tuple[str, ...] = field(default=())

    def roofs(self) -> dict[str, RoofCeiling]:
        """The best of each precision, the fastest first."""
        best: dict[str, RoofCeiling] = {}
        for one in sorted(self.ceilings, key=lambda one: -one.gmac_per_s):
            best.setdefault(one.precision, one)
        return best
